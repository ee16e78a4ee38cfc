"""Docstrings name arguments, attributes and errors that are there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from doc_blocks import ROOT

Documented = ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef


def section(text: str, title: str) -> list[str]:
    """The names that a section of a docstring describes: `draws, seed: of the bootstrap` -> draws, seed."""
    found = re.search(rf"^{title}:\n((?:[ ]+.*\n?|\n)+)", text, re.MULTILINE)
    if not found:
        return []
    lines = found.group(1).splitlines()
    indent = re.match(" *", lines[0]).group()  # type: ignore[union-attr]
    entries = [re.match(rf"{indent}([*\w][*\w, ]*?)(?: \(.*\))?:", line) for line in lines]
    return [name.strip().lstrip("*") for one in entries if one for name in one.group(1).split(",")]


def documented() -> Iterator[tuple[str, Documented, str]]:
    for path in sorted((ROOT / "speechft").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, Documented) and (text := ast.get_docstring(node)):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node, text


def parameters(node: Documented) -> set[str] | None:
    """Of a function, or of a class's `__init__` or fields; None where a base class has them."""
    if isinstance(node, ast.ClassDef):
        own = next((one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), None)
        if own is None:
            fields = [one.target for one in node.body if isinstance(one, ast.AnnAssign)]
            return {field.id for field in fields if isinstance(field, ast.Name)} or None
        node = own
    given = node.args
    several = [one for one in (given.vararg, given.kwarg) if one]
    return {one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs, *several)}


def test_arguments_are_those_of_the_signature():
    wrong = []
    for place, node, text in documented():
        names, known = section(text, "Args"), parameters(node)
        if known is not None and not set(names) <= known:
            wrong.append(f"{place} has no {', '.join(sorted(set(names) - known))}")
    assert not wrong, "\n".join(wrong)


def test_errors_have_names():
    """`UsageError: when`, of this package or of Python."""
    import builtins

    from speechft import errors

    for place, _, text in documented():
        for name in section(text, "Raises"):
            assert hasattr(errors, name) or hasattr(builtins, name), f"{place} raises {name}"


def test_the_section_is_read_as_written():
    text = (
        "It.\n\nArgs:\n    one, two: of it;\n        more: of that.\n    *three: rest.\n\nReturns:\n    four: five.\n"
    )
    assert section(text, "Args") == ["one", "two", "three"]
