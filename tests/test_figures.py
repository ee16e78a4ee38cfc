"""The look that all plots share."""

from speechft import figures


def test_names_stand_in_a_legend_letter_by_letter():
    """matplotlib leaves out what begins with a line below, and reads a formula between dollar signs."""
    figure, panel = figures.pyplot().subplots()
    names = ["_base", "cost $5 or $6", "stable"]
    for place, name in enumerate(names):
        panel.plot([0, 1], [place, place], label=figures.plain(name))
    figure.legend(*panel.get_legend_handles_labels())
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    figures.pyplot().close(figure)
    assert [text.strip().replace("\\$", "$") for text in shown] == names
