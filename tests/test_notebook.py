"""The notebook of the documentation: small, free of a machine's paths, and it runs from top to bottom."""

import json
import re

import pytest
from documented import DOCS

FILE = DOCS / "notebook.ipynb"


def test_it_was_run_from_top_to_bottom_and_is_small():
    text = FILE.read_text(encoding="utf-8")
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    assert not any(output["output_type"] == "error" for output in outputs)
    assert len(text) < 200_000
    assert not re.search(r"/(tmp|home|root|work|Users)/", text)


@pytest.mark.slow
def test_it_runs(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(DOCS.parent))
    notebook = nbformat.read(FILE, as_version=4)
    for cell in notebook.cells:
        cell.outputs = []
    nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert re.search(r"5 hidden states of \[2, \d+, 256\] at 50.0 frames a second", said), said
    assert len(re.findall(r"accuracy (0\.\d\d|1\.00)", said)) == 2
    pictures = [output for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    assert sum("image/png" in output["data"] for output in pictures) == 3
