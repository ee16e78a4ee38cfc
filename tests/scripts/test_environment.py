"""Scripts in Python find the virtual environment that scripts/setup makes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.mark.parametrize("name", ["arrange", "card", "crops"])
def test_a_python_without_what_is_needed_gives_way_to_the_environments(name, tmp_path):
    """Python without site-packages (-S) stands for a system's own."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(SCRIPTS / "_environment.py", tmp_path / "scripts")
    script = shutil.copy(SCRIPTS / name, tmp_path / "scripts")
    command = [sys.executable, "-S", script, "one", "--two", "three four"]
    alone = subprocess.run(command, capture_output=True, text=True, env={})
    line = f"scripts/{name}: error: this Python has not what speechft needs; run .venv/bin/python scripts/{name}"
    assert alone.returncode == 1 and alone.stderr.startswith(line) and alone.stderr.count("\n") == 1
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    python.chmod(0o755)
    found = subprocess.run(command, capture_output=True, text=True, env={})
    assert (found.returncode, found.stdout, found.stderr) == (0, f"{script}|one|--two|three four|", "")


def test_an_environment_without_it_either_is_not_asked_again(tmp_path):
    """The same line, and no endless turn between two Pythons."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(SCRIPTS / "_environment.py", tmp_path / "scripts")
    script = shutil.copy(SCRIPTS / "crops", tmp_path / "scripts")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / ".venv"], check=True)
    done = subprocess.run([sys.executable, "-S", script], capture_output=True, text=True, timeout=60, env={})
    assert done.returncode == 1 and done.stderr.startswith("scripts/crops: error: this Python has not")
