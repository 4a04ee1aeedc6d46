"""Finds classes in the source files of installed packages and of users without importing them."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

from sweepkit.tasks.references import package_folder

Function = TypeVar("Function", bound=Callable[..., Any])

_FORGET: list[Callable[[], None]] = []
_READ: dict[Path, tuple[int, int] | None] = {}
"""File that was read → its modification time in nanoseconds and its size."""


class _Unknown:
    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = _Unknown()
"""A default that cannot be read without running the code."""


def literal(node: ast.expr | None) -> Any:
    """Return the value of a literal expression, UNKNOWN for any other."""
    if node is None:
        return UNKNOWN
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return UNKNOWN


def kept(function: Function) -> Function:
    """Cache what a function returns until :func:`refresh` finds that a file changed."""
    keeping = cache(function)
    _FORGET.append(keeping.cache_clear)
    return keeping  # type: ignore[return-value]  # cache drops the signature


def refresh() -> None:
    """Clear the caches where a file has changed: in a notebook, tasks are edited between two runs."""
    if any(_stamp(file) != stamp for file, stamp in _READ.items()):
        _READ.clear()
        for forget in _FORGET:
            forget()


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


@kept
def parse(file: Path) -> ast.Module:
    """Return the file's syntax tree. Raises OSError and SyntaxError."""
    _READ[file] = _stamp(file)
    return ast.parse(file.read_bytes(), filename=str(file))


def find_class(file: Path, name: str) -> tuple[ast.ClassDef, Path] | None:
    """Return a class by the name it has in a module, following ``from … import``; None where that leads nowhere."""
    return _find(file, name, frozenset())


@kept
def _find(file: Path, name: str, seen: frozenset[tuple[Path, str]]) -> tuple[ast.ClassDef, Path] | None:
    if (file, name) in seen or not file.is_file():
        return None
    try:
        module = parse(file)
    except (OSError, SyntaxError):
        return None
    for node in _statements(module.body):
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node, file
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == name and (target := _module_file(file, node)):
                    return _find(target, alias.name, seen | {(file, name)})
    return None


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        yield node
        if isinstance(node, (ast.If, ast.Try)):
            yield from _statements(node.body)
            yield from _statements(node.orelse)


def _module_file(file: Path, node: ast.ImportFrom) -> Path | None:
    parts = (node.module or "").split(".") if node.module else []
    if node.level:
        folder = file.parent
        for _ in range(node.level - 1):
            folder = folder.parent
    else:
        beside = file.parent / f"{parts[0]}.py"
        if len(parts) == 1 and beside.is_file():
            return beside
        package = package_folder(parts[0])
        if package is None:
            return None
        folder, parts = package, parts[1:]
    target = folder.joinpath(*parts)
    return next((f for f in (target.with_name(f"{target.name}.py"), target / "__init__.py") if f.is_file()), None)
