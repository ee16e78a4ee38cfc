"""Tables and intervals against the definitions."""

import json

import numpy as np
import pytest

from speechft.demo.demo import read_intervals
from speechft.report.bootstrap import paired_interval
from speechft.report.collect import Score, read_score
from speechft.report.plot import plot_alpha
from speechft.report.shapes import recognise
from speechft.report.table import markdown, summarise


def _score(task, utterances, seed=0, higher=True):
    counts = np.array(utterances, dtype=float)
    value = 100 * counts[:, 0].sum() / counts[:, 1].sum()
    lines = [{"file": f"{n:05d}", "errors": a, "length": b} for n, (a, b) in enumerate(counts.tolist())]
    return Score(task, "acc" if higher else "per", value, higher, seed, recognise(lines, "per"), {})


def test_scores_are_read_with_their_utterances_in_order(tmp_path):
    record = {"task": "pr", "metric": "per", "metrics": {"per": 0.3}, "higher_better": False, "seed": 4}
    (tmp_path / "pr.json").write_text(json.dumps(record))
    lines = [{"file": "b", "errors": 2, "length": 5}, {"file": "a", "errors": 1, "length": 5}]
    (tmp_path / "pr.utterances.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    score = read_score(tmp_path / "pr.json")
    assert score.value == 30.0 and score.utterances.numbers.tolist() == [[1, 5], [2, 5]] and score.seed == 4


def test_a_difference_that_never_varies_has_no_width():
    base, other = _score("sid", [(0, 1)] * 50), _score("sid", [(1, 1)] * 50)
    assert paired_interval([base], [other]) == (100.0, 100.0, 100.0)
    assert paired_interval([base], [base]) == (0.0, 0.0, 0.0)


def test_the_interval_is_the_paired_one():
    """Two models that mostly agree: the paired interval is far narrower than independent ones, and near theory."""
    generator = np.random.default_rng(0)
    hard = generator.random(2000) < 0.5
    flipped = generator.random(2000) < 0.04
    base = _score("sid", [(int(not h), 1) for h in hard])
    other = _score("sid", [(int(not h or f), 1) for h, f in zip(hard, flipped, strict=True)])
    mean, low, high = paired_interval([base], [other])
    gained = (hard & flipped).mean()
    assert mean == pytest.approx(100 * gained)
    assert high - low == pytest.approx(2 * 1.96 * 100 * np.sqrt(gained * (1 - gained) / 2000), rel=0.15)
    assert low > 0


def test_the_phone_error_rate_is_weighted_by_length():
    base, other = _score("pr", [(0, 1), (9, 9)], higher=False), _score("pr", [(1, 1), (0, 9)], higher=False)
    assert paired_interval([base], [other])[0] == pytest.approx(10.0 - 90.0)


def test_models_scored_on_different_utterances_are_not_compared():
    with pytest.raises(ValueError, match="same utterances"):
        paired_interval([_score("sid", [(1, 1)] * 3)], [_score("sid", [(1, 1)] * 4)])


def test_the_table_shows_mean_spread_and_difference():
    rows = {
        "pre-trained": {"sid": [_score("sid", [(1, 1), (0, 1)], 0), _score("sid", [(1, 1), (0, 1)], 1)]},
        "merged": {"sid": [_score("sid", [(1, 1), (1, 1)], 0), _score("sid", [(1, 1), (0, 1)], 1)]},
    }
    cells = summarise(rows)
    assert cells[0]["mean"] == 50 and "difference" not in cells[0]
    assert cells[1]["values"] == [100, 50] and cells[1]["difference"]["mean"] == 25
    text = markdown(cells)
    assert "| pre-trained | 50.0 ± 0.0 |" in text and "| merged | 75.0 ± 25.0 (+25.0 [" in text


def test_the_reading_follows_the_intervals():
    def cell(model, task, low, high, better):
        return {
            "model": model,
            "task": task,
            "higher_better": better,
            "difference": {"mean": 0, "low": low, "high": high},
        }

    cells = [cell("m", "sid", -3, -1, True), cell("m", "pr", -3, -1, False), cell("m", "ks", -1, 2, True)]
    cells = [{"model": "pre-trained", "task": "pr"}, *cells, cell("n", "pr", -1, 1, False)]
    told = "m: SID worse, PR better, KS not clearly different; n: PR not clearly different."
    assert read_intervals(cells) == told


def test_the_plot_is_written(tmp_path):
    curves = {"pr": {"stable": {0.0: [50.0, 51.0], 1.0: [40.0, 41.0]}}, "sid": {"stable": {0.0: [9.0], 0.25: [8.0]}}}
    path = plot_alpha(curves, tmp_path / "alpha.png", "title")
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    drawn = plot_alpha(curves, tmp_path / "alpha.svg", "title").read_text()
    assert drawn.startswith("<?xml") and "dc:date" not in drawn  # the same scores give the same file, whenever drawn
    assert plot_alpha(curves, tmp_path / "again.svg", "title").read_text() == drawn
