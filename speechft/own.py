"""Code of the user's own: something in a file (`path/to/file.py:Name`), or in a module that Python can import."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from speechft.errors import UsageError


def in_file(where: str) -> bool:
    """Whether a name is `FILE.py:NAME`."""
    source, _, name = where.rpartition(":")
    return source.endswith(".py") and name.isidentifier()


def load_own(where: str, setting: str, kind: str, made: str, fits: Callable[[Any], bool]) -> Any:
    """What the user named.

    Args:
        where: `path/to/file.py:Name`, or `package.module:Name` of something that Python can import.
        setting: what it was given as, for messages: `task.kind`.
        kind: what it should be, in a word: `task`.
        made: how such a thing is made: `a class made from speechft.tasks.base.Task`.
        fits: whether an object is one.

    Raises:
        UsageError: no such file, module or name; it does not load; it is something else.
    """
    source, _, name = where.rpartition(":")
    path = Path(source).expanduser()
    try:
        module = module_of(path) if path.suffix == ".py" else importlib.import_module(source)
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise UsageError(f"{setting}: {source} does not load ({type(error).__name__}: {error})",
                         "give path/to/file.py:Name, or package.module:Name") from error  # fmt: skip
    found = getattr(module, name, None)
    if not fits(found):
        if inspect.isfunction(found) and kind == "method":
            raise UsageError(
                f"{setting}: {name} does not take (base, tuned, alpha, *, ...)",
                "write its parameters after a *, each with a default",
            )
        theirs = [key for key, value in vars(module).items() if fits(value) and _made_in(value, module)]
        raise UsageError(f"{setting}: {source} has no {kind} {name!r} ({made})",
                         f"its {kind}s: {', '.join(theirs) or 'none'}")  # fmt: skip
    return found


def own_class(where: str, setting: str, kind: str, base: type) -> Any:
    """A class of the user's own.

    Args:
        where, setting, kind: see `load_own`.
        base: what it must be made from.

    Raises:
        UsageError: as `load_own`; or the class lacks something.
    """
    made = f"{base.__module__}.{base.__qualname__}"
    found = load_own(
        where, setting, kind, f"a class made from {made}", lambda one: inspect.isclass(one) and issubclass(one, base)
    )
    missing = sorted(found.__abstractmethods__)
    if missing:
        raise UsageError(f"{setting}: {found.__name__} lacks {', '.join(missing)}", f"see {made} for each")
    return found


def _made_in(value: Any, module: ModuleType) -> bool:
    return getattr(value, "__module__", module.__name__) == module.__name__


def module_of(path: Path) -> ModuleType:
    """A file as a module. It is read once for each text, and kept where dataclasses and pickles look for it.

    Raises:
        FileNotFoundError: there is no such file.
        Exception: whatever the file's code raises.
    """
    if not path.is_file():
        raise FileNotFoundError("no such file")
    text = path.read_bytes()
    name = f"own_{path.stem}_{hashlib.sha256(str(path.resolve()).encode() + b'|' + text).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        exec(compile(text, str(path), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module
