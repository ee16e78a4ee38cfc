"""Scripts in Python begin with `import _environment`, which gives way to the environment that scripts/setup makes."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent

if importlib.util.find_spec("lhotse") is None:
    _python = _ROOT / ".venv" / "bin" / "python"
    # by its path: under another name it would not know its environment, and come back here
    if _python.is_file() and Path(sys.prefix).resolve() != (_ROOT / ".venv").resolve():
        os.execv(_python, [str(_python), *sys.argv])
    _name = f"scripts/{Path(sys.argv[0]).name}"
    _told = f"this Python has not what speechft needs; run .venv/bin/python {_name} (scripts/setup makes it)"
    raise SystemExit(f"{_name}: error: {_told}")
