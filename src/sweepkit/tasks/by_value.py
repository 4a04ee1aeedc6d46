"""A Task made in Python, in a notebook's cell for one, on its way to other processes by value. Knows no study.

What can be imported there goes by name, everything else with its code and what that refers to (cloudpickle).
"""

from __future__ import annotations

import dis
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import cloudpickle

from sweepkit.study.errors import InputError
from sweepkit.tasks.task import Task


def dumps(kind: type[Task]) -> bytes:
    """Return a Task class as bytes. Raises InputError, naming the attribute, where something of it cannot be sent."""
    try:
        return plain_dumps(kind)
    except Exception as error:  # pickling a person's objects may raise anything
        raise InputError(
            f"task: {kind.__name__} cannot be sent to the trial processes: {_way(kind)}: {error}; "
            "make it inside the method that needs it, or read it there from a file"
        ) from error


def loads(file: Path, home: Path) -> type[Task]:
    """Return the Task class in a file that :func:`dumps` filled; ``home`` has the modules beside it. Raises InputError."""
    if str(home) not in sys.path:  # a notebook imports what lies beside it, and so must who goes on with its study
        sys.path.append(str(home))
    try:
        found = pickle.loads(file.read_bytes())
    except OSError as error:
        raise InputError(f"task.pickle: {file} cannot be read: {error}") from error
    except (AttributeError, ImportError) as error:
        raise InputError(f"task.pickle: the task in {file} needs something that is not here: {error}") from error
    if not (isinstance(found, type) and issubclass(found, Task)):
        raise InputError(f"task.pickle: {file} holds {found!r}, not a Task class")
    return found


def plain_dumps(value: Any) -> bytes:
    """Return any thing as bytes; classes without the names around them, which pydantic keeps and which need not travel."""
    around = {
        kind: vars(kind)[_AROUND]
        for kind in (value.__mro__ if isinstance(value, type) else ())
        if vars(kind).get(_AROUND) is not None
    }
    try:
        for kind in around:
            setattr(kind, _AROUND, None)
        data: bytes = cloudpickle.dumps(value)
    finally:
        for kind, names in around.items():
            setattr(kind, _AROUND, names)
    return data


def references(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of the globals and the outer variables that a function's code, inner functions too, names."""
    for name in sorted(_names(function.__code__) & function.__globals__.keys()):
        yield name, function.__globals__[name]
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not filled yet
            continue


def goes_by_name(value: Any) -> bool:
    """Whether a class or a function is an attribute of an importable module, so that its name is all that is sent."""
    found: Any = sys.modules.get(str(getattr(value, "__module__", "")))
    if getattr(found, "__name__", "__main__") == "__main__":
        return False
    for part in getattr(value, "__qualname__", "").split("."):
        found = getattr(found, part, None)
    return found is value


def _names(code: CodeType) -> set[str]:
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    own = {step.argval for step in dis.get_instructions(code) if step.opname.endswith("_GLOBAL")}
    return own.union(*map(_names, inner))


_AROUND = "__pydantic_parent_namespace__"


def _way(kind: type[Task]) -> str:
    """Return how one gets from a class to what cannot be sent, for example ``Reviews.data uses lock``."""
    seen: set[int] = set()

    def down(name: str, value: Any) -> list[str] | None:
        if id(value) in seen:
            return None
        seen.add(id(value))
        try:
            plain_dumps(value)
        except Exception:  # noqa: BLE001  # it is what is looked for
            ways = (down(*part) for part in _parts(value))
            return [name, *(next((way for way in ways if way), []))]
        return None

    first, *rest = down(kind.__name__, kind) or [kind.__name__]
    attribute = ".".join([first, *rest[:1]])
    return ", which uses ".join([" uses ".join([attribute, *rest[1:2]]), *rest[2:]])


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    value = getattr(value, "__func__", value)
    if isinstance(value, FunctionType):
        yield from references(value)
    elif isinstance(value, type):
        for name, field in getattr(value, "__pydantic_fields__", {}).items():
            yield name, field.default
        for name, part in vars(value).items():
            if not name.startswith("__pydantic"):
                yield name, part
