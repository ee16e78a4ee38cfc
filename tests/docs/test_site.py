"""The site builds without warnings, offline; the API pages name what is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec

import pytest
import yaml
from doc_blocks import ROOT

REFERENCE = sorted((ROOT / "docs" / "reference").glob("*.md"))


def test_the_api_pages_name_modules_that_are_there():
    named = [one for page in REFERENCE for one in re.findall(r"^::: ([\w.]+)$", page.read_text(), re.MULTILINE)]
    assert len(named) == len(set(named)) > 50
    for one in named:
        import_module(one)


def test_nothing_is_fetched():
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert config["theme"]["font"] is False and "analytics" not in str(config) and "http" not in str(config)


@pytest.mark.skipif(find_spec("mkdocs") is None, reason="needs the extra docs: scripts/setup docs")
def test_it_builds_without_warnings(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    index = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    outside = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)"', index)
    assert not outside, outside
    assert "load_upstream" in (tmp_path / "site" / "reference" / "upstreams.html").read_text(encoding="utf-8")
