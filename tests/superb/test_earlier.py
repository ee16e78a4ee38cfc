"""Results of another evaluation in the same place: said, kept, and taken up again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from listener import Listener
from tiny_corpora import save_upstream

from speechft.files import read_json
from speechft.hub.push import _result_files
from speechft.report.rows import _result_files as _reported
from speechft.superb import earlier
from speechft.superb.evaluate import evaluate
from speechft.superb.fast import FastRun


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_another_seed_puts_the_first_result_aside(configuration, upstream_folder, monkeypatch, tmp_path):
    listener, folder = Listener(), tmp_path / "out" / "tiny"
    (first,) = evaluate([upstream_folder], cfg=configuration(tasks=["sid"]), progress=listener)
    of_first = contents(folder)
    changed = configuration(tasks=["sid"], seed=3)
    changed["superb"]["sid"]["lr"] = 2e-3
    (second,) = evaluate([upstream_folder], cfg=changed, progress=listener)
    said = " ".join(listener.text.split())
    assert "another evaluation's result is there (seed 1337, now 3; lr [0.01], now [0.002])" in said
    of_second = contents(folder)
    aside = folder / earlier.FOLDER
    assert sorted(contents(aside).values()) == sorted(of_first.values())
    assert read_json(folder / "sid.json") == second != first

    monkeypatch.setattr(FastRun, "train", lambda self: pytest.fail("computed again"))
    assert evaluate([upstream_folder], cfg=configuration(tasks=["sid"]), progress=listener) == [first]
    assert contents(folder) == of_first and sorted(contents(aside).values()) == sorted(of_second.values())
    assert [path.name for path in _reported(folder)] == ["sid.json"]
    for place in (folder, folder.parent):  # as push may be given
        assert list(_result_files([place])) == [folder / "sid.json"]


def test_what_differs_is_named_and_names_are_not(configuration, upstream_folder, tmp_path):
    cfg, listener = configuration(tasks=["ks"]), Listener()
    (first,) = evaluate({"one": upstream_folder}, cfg=cfg, progress=listener)
    place = tmp_path / "out" / "one" / "ks.json"
    renamed = {**first["upstream"], "name": "two", "source": "/elsewhere"}
    assert earlier.other(place, {"upstream": renamed}) == "other files, or features of another version"
    other = save_upstream(tmp_path / "other", seed=1)
    (second,) = evaluate({"one": other}, cfg=cfg, progress=listener)
    old, new = (result["upstream"]["sha256"][:12] for result in (first, second))
    assert f"(sha256 {old}..., now {new}...)" in " ".join(listener.text.split())
    assert earlier.other(tmp_path / "absent.json", {}) is None


def test_a_damaged_result_is_not_kept(configuration, upstream_folder, tmp_path):
    cfg, folder = configuration(tasks=["sid"]), tmp_path / "out" / "tiny"
    (first,) = evaluate([upstream_folder], cfg=cfg, progress=Listener())
    (folder / "sid.json").write_text(json.dumps(first)[:50])
    (again,) = evaluate([upstream_folder], cfg=cfg, progress=Listener())
    assert again["metrics"] == first["metrics"] and not (folder / earlier.FOLDER).exists()
