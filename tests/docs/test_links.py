"""Links between pages and to their headings, and the place of every page in the site's navigation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from doc_blocks import PAGES, ROOT, name, prose

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The ids of a page's headings, as Python-Markdown's `toc` makes them."""
    found: set[str] = set()
    for title in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "")
        slug = re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", text.encode("ascii", "ignore").decode()).strip().lower())
        unique, count = slug, 0
        while unique in found:
            count += 1
            unique = f"{slug}_{count}"
        found.add(unique)
    return found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path):
    for target in _LINK.findall(prose(page)):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{name(page)}: {target}"
        if page.is_relative_to(ROOT / "docs"):
            assert there.is_relative_to(ROOT / "docs"), f"{name(page)}: {target} is not part of the site"
        if anchor:
            assert anchor in anchors(there), f"{name(page)}: {target}; headings: {sorted(anchors(there))}"


def _entries(nav: object) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [one for part in parts for one in _entries(part)]  # type: ignore[union-attr]


def test_every_page_has_its_place():
    entries = _entries(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    pages = {str(page.relative_to(ROOT / "docs")) for page in PAGES if page.is_relative_to(ROOT / "docs")}
    assert len(entries) == len(set(entries))
    assert pages == {one for one in entries if one.endswith(".md")}
    assert all((ROOT / "docs" / one).exists() for one in entries)


def test_the_readme_links_to_the_pages():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "(docs/" in text
