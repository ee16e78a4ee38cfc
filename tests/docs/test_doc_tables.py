"""Pages that list what there is list all of it."""

from __future__ import annotations

import pytest
from doc_blocks import ROOT, spans

from speechft.cli.main import VERBS
from speechft.config.locate import group_names
from speechft.merge.registry import METHODS
from speechft.superb.tasks import NAMES

OTHERS = ("own", "synthetic", "hubert_nano_random")
"""Choices that have pages of their own, or serve the project itself."""


def named(group: str) -> list[str]:
    return [one for one in group_names(group) if one not in OTHERS]


LISTS = [
    ("docs/upstreams.md", "upstreams", named("upstream")),
    ("docs/merging.md", "merge methods", list(METHODS)),
    ("docs/training.md", "strategies", group_names("strategy")),
    ("docs/training.md", "tasks", group_names("task")),
    ("docs/data.md", "corpora", named("data")),
    ("docs/superb.md", "SUPERB tasks", list(NAMES)),
]


@pytest.mark.parametrize(("page", "what", "names"), LISTS, ids=[f"{what} in {page}" for page, what, _ in LISTS])
def test_a_list_is_complete(page, what, names):
    listed = {span for _, span in spans(ROOT / page)}
    assert not sorted(set(names) - listed), f"{page} does not list these {what}"


def test_every_command_is_explained():
    text = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md"))
    assert all(f"speechft {verb}" in text for verb in VERBS)
