"""`report.html`: needs nothing beside it, says what the report says, and holds whatever names contain."""

from __future__ import annotations

import base64
import json
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest
from results import identity, write_accuracy, write_run

from speechft.report.report import make_report

HALF, MORE = [1, 0] * 20, [1, 1, 1, 0] * 10
LOADING = ("img", "script", "link", "iframe", "object", "embed", "source", "video", "audio", "base", "form")
VOID = ("meta", "img", "br")


class Page(HTMLParser):
    """What a page shows, what it would load, and whether its tags fit."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.images, self.loads, self.ids, self.anchors = [], [], [], set(), []
        self.words: list[str] = []
        self.styles = ""
        self.feed(text)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        own = dict(attrs)
        if tag in LOADING:
            (self.images if tag == "img" else self.loads).append(own.get("src") or own.get("href") or tag)
        if tag == "img":
            assert own["alt"]
        if tag == "a":
            self.anchors.append(own["href"])
        if "id" in own:
            self.ids.add(own["id"])
        assert not any(name.startswith("on") or name == "style" for name in own)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            self.styles += data
        else:
            self.words.append(data)


def analysis(base: str, models: dict[str, tuple[str, float, float]]) -> dict:
    """`analysis.json` of models: name -> weights, α, update in per cent."""

    def one(name, weights, alpha, moved):
        norms = {"norm": moved, "base_norm": 100.0, "relative": moved / 100}
        layers = [
            {"layer": n, "cka": 1 - n * moved / 50, "cosine": 0.9, "relative_l2": 0.1, "frames": 77} for n in (0, 1)
        ]
        return {
            "name": name, "sha256": weights, "series": "mine", "alpha": alpha, "layers": layers,
            "update": {**norms, "parts": {"layers.0": {**norms, "modules": {"q": norms}}}},
            "similarity": {"cka": 1 - moved / 100, "cosine": 0.9, "relative_l2": 0.1,
                           "lowest": {"layer": 1, "cka": 1 - moved / 50}},
        }  # fmt: skip

    audio = {"source": "some/audio", "utterances": 5, "seconds": 12.0, "frames": 77, "dim": 2, "sha256": "audio"}
    return {"base": {"name": "base", "sha256": base}, "audio": audio, "notes": ["few frames"],
            "models": [one(name, *own) for name, own in models.items()]}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("html")
    for name, letter in (("mine", "w"), ("a<b>&c", "v")):
        run = write_run(root / name, "w0", f"{letter}1", {0.25: f"{letter}25"}, seed=3)
        (run / "config.yaml").write_text(f"seed: 3\nname: {name!r}\ntrainer:\n  lr: {0.25 if letter == 'w' else 0.5}\n")
        merged = identity(f"{letter}25", source=str(run / "merged" / "alpha-0.25"))
        write_accuracy(run / "superb" / f"{name}-alpha-0.25", "sid", MORE, merged, layer_weights=[0.125, 0.875],
                       versions={"torch": "9.9.1"})  # fmt: skip
        (run / "analysis").mkdir()
        models = {f"{name}-alpha-0.25": (f"{letter}25", 0.25, 1.234), "shared": ("w1", 1.0, 4.5)}
        (run / "analysis" / "analysis.json").write_text(json.dumps(analysis("w0", models)))
    write_accuracy(root / "mine" / "superb" / "base", "sid", HALF, identity("w0"), layer_weights=[0.5, 0.5])
    report = make_report([root / "mine", root / "a<b>&c"], out=root / "out", draws=200, plots=["svg", "pdf"])
    return root / "out", report, Page((root / "out" / "report.html").read_text(encoding="utf-8"))


def test_nothing_is_loaded_from_elsewhere(made):
    _, _, page = made
    assert page.open == [] and page.loads == []
    assert len(page.images) == 6  # over α; drift, similarity, updates, modules; layer weights
    for image in page.images:
        kind, _, data = image.partition(",")
        assert kind == "data:image/svg+xml;base64"
        svg = ElementTree.fromstring(base64.b64decode(data))
        assert svg.tag.endswith("}svg")
        links = [value for node in svg.iter() for key, value in node.attrib.items() if key.endswith("href")]
        assert links and all(link.startswith("#") for link in links)
        assert not any(node.tag.endswith(("}image", "}script", "}text")) for node in svg.iter())  # letters are outlines
    assert "url(" not in page.styles and "@import" not in page.styles
    assert all(link.startswith(("#", "https://")) for link in page.anchors)
    assert {link[1:] for link in page.anchors if link.startswith("#")} <= page.ids


def test_the_page_says_the_numbers(made):
    _, report, page = made
    for row in report["rows"]:
        cell = row["cells"]["sid.acc"]
        low, high = cell["interval"]
        assert f"{row['name']}" in page.text and f"{cell['mean']:.2f} [{low:.2f}, {high:.2f}]" in page.text
        assert f"{row['superb_s']['value']:.0f}" in page.text
    change = report["rows"][1]["cells"]["sid.acc"]["difference"]
    assert change["verdict"] == "better" and f"▲ {change['mean']:+.2f} [{change['interval'][0]:+.2f}" in page.text
    assert "mine-alpha-0.25, a<b>&c-alpha-0.25 : better in SID accuracy" in page.text
    assert "HuBERT Base 81.42" in page.text and "superbbenchmark.github.io" in page.text
    assert "1.234 0.9877 0.9753 (1) 0.9000 0.1000" in page.text
    assert "on all 77 frames of 5 utterances (12 s) of some/audio. Note: few frames." in page.text
    assert "torch 9.9.1" in page.text and "trainer.lr 0.25 0.5" in page.text and "seed: 3" in page.text
    assert "seed 3" not in page.text  # runs do not differ in it


def test_the_other_files_beside_it(made):
    folder, report, _ = made
    names = ["alpha", "drift", "similarity", "updates", "modules", "layer-weights"]
    assert [one["files"] for one in report["pictures"]] == [[f"{name}.svg", f"{name}.pdf"] for name in names]
    assert all((folder / name).is_file() for one in report["pictures"] for name in one["files"])
    assert "![Features kept against weights moved, from base](drift.svg)" in report["markdown"]
    assert "| mine-alpha-0.25 | 0.25 | 1.234 | 0.9877 |" in report["markdown"]
    written = json.loads((folder / "report.json").read_text())
    assert all("svg" not in one for one in written["pictures"])
    assert written["plots"][0]["file"] == "alpha.svg"


def test_analyses_of_one_base_and_audio_are_joined(made):
    _, report, _ = made
    (drift,) = report["drift"]
    assert [model["name"] for model in drift["models"]] == ["mine-alpha-0.25", "shared", "a<b>&c-alpha-0.25"]


def test_learned_weights_beside_those_of_the_base(made):
    _, report, _ = made
    assert report["layer_weights"] == [{"base": "base", "tasks": {"sid": {
        "base": {"weights": [0.5, 0.5], "results": 1},
        "mine-alpha-0.25": {"weights": [0.125, 0.875], "results": 1},
        "a<b>&c-alpha-0.25": {"weights": [0.125, 0.875], "results": 1},
    }}}]  # fmt: skip


def test_intervals_stand_on_the_curves(made):
    _, report, _ = made
    (plot,) = report["plots"]
    ends = plot["intervals"]["sid.acc"]["mine"]
    rows = {row["name"]: row for row in report["rows"]}
    assert ends == {
        0.0: rows["base"]["cells"]["sid.acc"]["interval"], 0.25: rows["mine-alpha-0.25"]["cells"]["sid.acc"]["interval"]
    }  # fmt: skip


def test_without_analysis_or_runs(tmp_path):
    write_accuracy(tmp_path / "alone", "sid", HALF, identity("w9"))
    (tmp_path / "x" / "analysis").mkdir(parents=True)
    report = make_report([tmp_path / "alone"], draws=100)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert page.open == [] and page.images == [] and "50.00 [" in page.text and "No run’s folder is known" in page.text
    assert report["drift"] == [] and report["layer_weights"] == []


def test_a_damaged_analysis_is_said(tmp_path):
    run = write_run(tmp_path / "mine", "w0", "w1", {0.25: "w25"})
    write_accuracy(run / "superb" / "m", "sid", HALF, identity("w25", source=str(run / "merged" / "alpha-0.25")))
    (run / "analysis").mkdir()
    (run / "analysis" / "analysis.json").write_text('{"models": 3}')
    report = make_report([run], draws=100)
    assert report["drift"] == [] and any("analysis.json is not the result of an analysis" in n for n in report["notes"])


def test_an_analysis_of_other_weights_than_were_scored_is_left_out(tmp_path):
    """A folder may have been merged again since: its name alone does not make the figures those of the table's row."""
    run = write_run(tmp_path / "mine", "w0", "w1", {0.25: "w25"})
    source = str(run / "merged" / "alpha-0.25")
    write_accuracy(run / "superb" / "mine-alpha-0.25", "sid", HALF, identity("w25", source=source))
    found = analysis("w0", {"mine-alpha-0.25": ("older", 0.25, 1.2), "mine-finetuned": ("w1", 1.0, 4.5)})
    found["models"][0]["source"] = source
    (run / "analysis").mkdir()
    (run / "analysis" / "analysis.json").write_text(json.dumps(found))
    report = make_report([run], draws=100)
    assert [model["name"] for model in report["drift"][0]["models"]] == ["mine-finetuned"]
    told = "analysis.json knows other weights of mine-alpha-0.25 than were scored; run speechft analyze again"
    assert any(told in note for note in report["notes"])
    (run / "analysis" / "analysis.json").write_text(json.dumps({**found, "models": found["models"][:1]}))
    assert make_report([run], draws=100)["drift"] == []


def test_a_name_is_no_formula(tmp_path):
    """matplotlib reads what stands between dollar signs as one, and stops where it is none."""
    name = "a$x_$b"
    run = write_run(tmp_path / name, "w0", "w1", {0.25: "w25"})
    merged = identity("w25", source=str(run / "merged" / "alpha-0.25"))
    write_accuracy(run / "superb" / "base", "sid", HALF, identity("w0"), layer_weights=[0.5, 0.5])
    write_accuracy(run / "superb" / name, "sid", MORE, merged, layer_weights=[0.125, 0.875])
    found = analysis("w0", {name: ("w25", 0.25, 1.234)})
    found["base"]["name"] = found["models"][0]["series"] = name
    (run / "analysis").mkdir()
    (run / "analysis" / "analysis.json").write_text(json.dumps(found))
    assert len(make_report([run], draws=100, plots=["svg"])["pictures"]) == 6
