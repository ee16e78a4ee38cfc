"""The order of packages that docs/architecture.md and its picture show is the one of the imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from doc_blocks import ROOT

PACKAGE = ROOT / "speechft"
NOT_CODE = {"assets", "configs", "__pycache__"}


def documented() -> list[str]:
    """The packages of the page's first table, from its top."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)


def packages() -> set[str]:
    return {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name not in NOT_CODE}


def imports(path: Path) -> Iterator[str]:
    """What of speechft a file imports, anywhere in it: `superb.settings`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            if node.module == "speechft":
                yield from (alias.name for alias in node.names)
            elif node.module.startswith("speechft."):
                yield node.module.removeprefix("speechft.")
        elif isinstance(node, ast.Import):
            yield from (one.name.removeprefix("speechft.") for one in node.names if one.name.startswith("speechft."))


def test_the_page_and_the_picture_show_every_package_in_one_order():
    picture = (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8")
    assert set(documented()) == packages()
    assert re.findall(r'class="package"[^>]*>(\w+)<', picture) == documented()


def test_a_package_imports_only_what_stands_above_it():
    order = documented()
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        own = path.relative_to(PACKAGE).parts[0]
        if own not in order:
            continue
        for module in imports(path):
            other = module.partition(".")[0]
            if other in order and order.index(other) > order.index(own):
                wrong.append(f"{path.relative_to(ROOT)} imports {module}")
    assert not wrong, wrong


def test_what_the_page_says_a_package_does_not_import():
    """The last column, and the rules on s3prl."""
    never = {
        "tasks": {"strategies"}, "strategies": {"tasks"}, "merge": {"train", "tasks", "strategies"},
        "superb": {"train", "merge", "tasks", "strategies"},
    }  # fmt: skip
    for own, others in never.items():
        for path in (PACKAGE / own).rglob("*.py"):
            found = {module.partition(".")[0] for module in imports(path)} & others
            assert not found, f"{path.relative_to(ROOT)} imports {found}"
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).parts[0] not in ("superb", "bench"):
            assert not re.search(r"^\s*(from|import) s3prl", path.read_text(encoding="utf-8"), re.MULTILINE), path
