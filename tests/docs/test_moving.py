"""docs/moving.md names what s3prl has, and what we have."""

from __future__ import annotations

import ast
import re
from importlib.util import find_spec
from pathlib import Path

from doc_blocks import ROOT

from speechft.config.locate import group_names
from speechft.superb.tasks import NAMES

PAGE = (ROOT / "docs" / "moving.md").read_text(encoding="utf-8")


def s3prl_folder() -> Path:
    spec = find_spec("s3prl")
    assert spec is not None and spec.origin
    return Path(spec.origin).parent


def hub_entries() -> set[str]:
    """What `s3prl.hub` takes from its upstreams' hubconf.py, without importing anything of it."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in s3prl_folder().glob("upstream/*/hubconf.py")]
    return {node.name for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}


def rows(title: str) -> list[list[str]]:
    """The cells of the table with this header."""
    table = PAGE[PAGE.index(title) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in table]


def names(cell: str) -> list[str]:
    return re.findall(r"`([a-z]\w+)`", cell)


def test_upstreams_have_these_names():
    table, entries, known = rows("| s3prl | here |"), hub_entries(), group_names("upstream")
    assert len(table) > 5
    for theirs, ours in table:
        assert names(theirs) and set(names(theirs)) <= entries, theirs
        assert set(names(ours)) <= set(known), ours
        if ours == "the same":
            assert set(names(theirs)) <= set(known)


def test_models_of_both_names_are_the_same():
    """The native checkpoint that our configuration's comment names is the one that s3prl's entry fetches; of WavLM's
    files s3prl spells the names in its own way."""
    text = "".join(path.read_text(encoding="utf-8") for path in s3prl_folder().glob("upstream/*/hubconf.py"))
    compared = 0
    for theirs, ours in rows("| s3prl | here |"):
        for there, here in zip(re.split(";", theirs), re.split(";", ours), strict=False):
            if len(names(here)) != 1 or not names(there):
                continue
            comment = (ROOT / "configs" / "upstream" / f"{names(here)[0]}.yaml").read_text(encoding="utf-8")
            native = re.search(r"native checkpoint is (?:s3prl's )?(\S+\.pt)", comment)
            if native:
                spelled = native.group(1).lower().replace("-", "_").replace("+", "_plus")
                last = names(there)[-1]
                entry = text[text.index(f"def {last}(") :].split("\ndef ")[0].lower()
                assert native.group(1).lower() in entry or spelled in entry, (last, native.group(1))
                compared += 1
    assert compared > 6


def test_tasks_have_these_folders():
    listed = PAGE[PAGE.index("Tasks are named by SUPERB") :].split("\n\n")[0]
    pairs = re.findall(r"`(\w+)`(?: with\s+`[\w.]+`)? is\s+`(\w+)`", listed)
    assert len(pairs) == len(NAMES) - 1  # asr is asr
    for folder, task in pairs:
        assert (s3prl_folder() / "downstream" / folder / "expert.py").is_file(), folder
        assert task in NAMES


def test_options_of_the_runner_are_there():
    text = (s3prl_folder() / "run_downstream.py").read_text(encoding="utf-8")
    known = set(re.findall(r"add_argument\('(-\w)'", text)) | set(re.findall(r"'(--\w+)'", text))
    left = " ".join(row[0] for row in rows("| with s3prl you typed | here |"))
    used = set(re.findall(r"(?<!\S|`)`?(-[a-z]) ", left)) | set(re.findall(r"(--\w+)", left))
    torch_run, git = {"--nproc_per_node"}, {"-i", "-e"}
    assert len(used) > 6 and used - torch_run - git <= known, used - known
