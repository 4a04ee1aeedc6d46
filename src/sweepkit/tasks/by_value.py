"""Sends a Task class that no file holds, made in a notebook's cell for one, to other processes by value (cloudpickle).

What these can import goes by name; everything else goes with its code and what that refers to.
"""

from __future__ import annotations

import dis
import hashlib
import inspect
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import cloudpickle

from sweepkit.study.errors import DamagedFile, InputError
from sweepkit.study.files import describe, text_of
from sweepkit.tasks.task import Task

_NAMESPACE = "__pydantic_parent_namespace__"
"""Where pydantic keeps the names around a class; they need not travel, and often cannot."""


def dumps(kind: type[Task]) -> bytes:
    """Return a Task class as bytes. Raises InputError, naming the attribute, where part of it cannot be pickled."""
    try:
        return _dumps(kind)
    except Exception as error:  # pickling a person's objects may raise anything
        raise InputError(
            f"task: {kind.__name__} cannot be sent to the trial processes: {_culprit(kind)}: {text_of(error)}; "
            "create it inside the method that needs it, or read it there from a file"
        ) from error


def loads(file: Path, home: Path) -> type[Task]:
    """Return the Task class in a file written from :func:`dumps`; it may import modules in ``home``. Raises InputError."""
    if str(home) not in sys.path:  # a notebook can import the modules beside it
        sys.path.append(str(home))
    try:
        kind = pickle.loads(file.read_bytes())
    except OSError as error:
        raise InputError(f"task.pickle: {file} cannot be read: {error}") from error
    except (AttributeError, ImportError) as error:
        raise InputError(
            f"task.pickle: the task in {file} needs something that is not installed here: {error}"
        ) from error
    except Exception as error:  # whatever a damaged file makes pickle raise
        fault = f"cannot be read ({describe(error)})"
        raise DamagedFile(
            file, fault, "run the cell or script that defines its study, which writes it again"
        ) from error
    if not (isinstance(kind, type) and issubclass(kind, Task)):
        raise InputError(f"task.pickle: {file} holds {kind!r}, not a Task class")
    return kind


def code_of(kind: type[Task]) -> str:
    """Return text that changes with the code of a class and of all that goes with it by value.

    It holds no addresses, file names or line numbers, so that it is the same in every process.
    """
    return repr(_code(kind, set()))


def _code(value: Any, seen: set[int]) -> Any:
    """Return nested lists and tuples of text; ``seen`` holds the ids of functions and classes on the way."""
    if isinstance(value, CodeType):
        return value.co_code.hex(), value.co_names, [_code(constant, seen) for constant in value.co_consts]
    if isinstance(value, (str, bytes, int, float, complex, type(None))):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return [_code(part, seen) for part in value]
    if isinstance(value, (set, frozenset)):
        return sorted(repr(_code(part, seen)) for part in value)
    if isinstance(value, dict):
        return sorted((repr(key), repr(_code(part, seen))) for key, part in value.items())
    if isinstance(value, ModuleType):
        return value.__name__
    return _code_of_object(value, seen)


def _code_of_object(value: Any, seen: set[int]) -> Any:
    if _goes_by_name(value):
        return f"{value.__module__}.{value.__qualname__}"
    value = inspect.unwrap(getattr(value, "__func__", getattr(value, "fget", value)))
    if not isinstance(value, (FunctionType, type)):
        return hashlib.sha256(_dumps(value)).hexdigest()
    if id(value) in seen:
        return value.__qualname__
    seen.add(id(value))
    if isinstance(value, FunctionType):
        parts = [value.__code__, value.__defaults__, value.__kwdefaults__]
        used = [(name, _code(part, seen)) for name, part in _references(value)]
        return [_code(part, seen) for part in parts], used
    own = {name: part for name, part in vars(value).items() if name[:2] != "__" and name != "_abc_impl"}
    return [_code(base, seen) for base in value.__bases__], _code(own, seen)


def _dumps(value: Any) -> bytes:
    """Pickle anything; drops pydantic's parent namespace from classes."""
    mro = value.__mro__ if isinstance(value, type) else ()
    namespaces = {kind: vars(kind)[_NAMESPACE] for kind in mro if vars(kind).get(_NAMESPACE) is not None}
    try:
        for kind in namespaces:
            setattr(kind, _NAMESPACE, None)
        data: bytes = cloudpickle.dumps(value)
    finally:
        for kind, names in namespaces.items():
            setattr(kind, _NAMESPACE, names)
    return data


def _goes_by_name(value: Any) -> bool:
    """Whether a class or function is an attribute of an importable module, so that cloudpickle sends only its name."""
    owner: Any = sys.modules.get(str(getattr(value, "__module__", "")))
    if getattr(owner, "__name__", "__main__") == "__main__":
        return False
    for part in getattr(value, "__qualname__", "").split("."):
        owner = getattr(owner, part, None)
    return owner is value


def _references(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of the globals and closure variables that a function uses, inner functions included."""
    for name in sorted(_global_names(function.__code__) & function.__globals__.keys()):
        yield name, function.__globals__[name]
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not filled yet
            continue


def _global_names(code: CodeType) -> set[str]:
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    own = {step.argval for step in dis.get_instructions(code) if step.opname.endswith("_GLOBAL")}
    return own.union(*map(_global_names, inner))


def _culprit(kind: type[Task]) -> str:
    """Return the way from a class to what cannot be pickled, for example ``Reviews.data uses load, which uses lock``."""
    way, value, seen = [kind.__name__], kind, {id(kind)}
    while part := next((part for part in _parts(value) if id(part[1]) not in seen and not _can_be_sent(part[1])), None):
        name, value = part
        seen.add(id(value))
        way.append(name)
    attribute = ".".join(way[:2])
    return " uses ".join([attribute, ", which uses ".join(way[2:])]) if way[2:] else attribute


def _can_be_sent(value: Any) -> bool:
    try:
        _dumps(value)
    except Exception:  # noqa: BLE001  # pickling a person's objects may raise anything
        return False
    return True


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of a class's defaults and attributes, or of what a function uses."""
    value = getattr(value, "__func__", value)
    if isinstance(value, FunctionType):
        yield from _references(value)
    elif isinstance(value, type):
        for name, field in getattr(value, "__pydantic_fields__", {}).items():
            yield name, field.default
        yield from ((name, part) for name, part in vars(value).items() if not name.startswith("__pydantic"))
