"""Describes the fields and parameters of classes: kinds, closed sets of texts, defaults."""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
import types
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel


class _Unknown:
    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = _Unknown()
"""A default that is not plain data."""

_KINDS: Mapping[Any, str] = {
    type(None): "none",
    bool: "bool",
    int: "int",
    float: "float",
    str: "str",
    Path: "str",
    Mapping: "dict",
    **dict.fromkeys((set, frozenset, Sequence, Collection, Iterable), "list"),
}


@dataclass(frozen=True)
class Field:
    """What one name accepts."""

    name: str
    kinds: frozenset[str] = frozenset()
    """Among bool, int, float, str, dict, list, none; empty: anything."""
    default: Any = UNKNOWN
    choices: tuple[str, ...] = ()
    """The only texts it accepts; empty: any text."""
    required: bool = False

    def plain(self) -> list[Any]:
        """Return the field as JSON-compatible data."""
        known = [] if self.default is UNKNOWN else [self.default]
        return [sorted(self.kinds), list(self.choices), self.required, known]

    @classmethod
    def read(cls, name: str, plain: list[Any]) -> Field:
        """Return the field that :meth:`plain` wrote."""
        kinds, choices, required, known = plain
        return cls(name, frozenset(kinds), known[0] if known else UNKNOWN, tuple(choices), required)


def fields_of(cls: type) -> dict[str, Field]:
    """Return the fields that a dataclass or a pydantic model takes, else the parameters of the class."""
    if issubclass(cls, BaseModel):
        found = {
            field.alias or name: _field(
                field.alias or name,
                field.annotation,
                field.get_default(call_default_factory=True, validated_data={})
                if not field.is_required()
                else _MISSING,
            )
            for name, field in cls.model_fields.items()
        }
    elif dataclasses.is_dataclass(cls):
        found = {
            field.name: _field(
                field.name,
                _resolved(field.type, _home(cls, field.name)),
                _default(field),
                field.metadata.get("choices"),
            )
            for field in dataclasses.fields(cls)
            if field.init
        }
    else:
        found = parameters_of(cls)
    return {name: field for name, field in found.items() if not name.startswith("_")}


def parameters_of(function: Any) -> dict[str, Field]:
    """Return the named parameters of a class or function, without self."""
    written = inspect.unwrap(getattr(function, "__init__", function) if isinstance(function, type) else function)
    home = getattr(written, "__globals__", {})
    return {
        name: _field(name, _resolved(each.annotation, home), _MISSING if each.default is each.empty else each.default)
        for name, each in inspect.signature(function).parameters.items()
        if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD) and name != "self"
    }


_MISSING = object()


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return _MISSING if field.default is dataclasses.MISSING else field.default


def _home(cls: type, name: str) -> Mapping[str, Any]:
    """Return the names visible where a field was declared."""
    owner = next(each for each in cls.__mro__ if name in inspect.get_annotations(each))
    return {**vars(sys.modules.get(owner.__module__, types)), **vars(owner)}


def _resolved(annotation: Any, home: Mapping[str, Any]) -> Any:
    """Return an annotation as an object; Any where a name in it cannot be found, as under ``TYPE_CHECKING``."""
    if not isinstance(annotation, str):
        return Any if annotation is inspect.Parameter.empty else annotation
    try:
        return _resolved(eval(annotation, dict(home)), home)
    except Exception:  # noqa: BLE001  # an annotation may be any text
        return Any


def _field(name: str, annotation: Any, default: Any, listed: Any = None) -> Field:
    kinds, choices = _accepted(annotation)
    if isinstance(listed, (list, tuple)):
        choices = tuple(text for text in listed if isinstance(text, str)) or choices
    return Field(name, kinds, UNKNOWN if default is _MISSING else _plain(default), choices, default is _MISSING)


def _plain(value: Any) -> Any:
    value = value.value if isinstance(value, Enum) else value
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError, RecursionError):
        return UNKNOWN


def _accepted(annotation: Any) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return the kinds and the closed set of texts that an annotation allows; nothing where it names another class."""
    kinds: set[str] = set()
    texts: list[Any] = []
    enumerated = open_text = False
    for part in _alternatives(annotation):
        if typing.get_origin(part) is typing.Literal:
            values = list(typing.get_args(part))
            kinds |= {_kind(type(value)) or "" for value in values}
            texts += values
        elif isinstance(part, type) and issubclass(part, Enum):
            kinds.add("str")
            texts += [member.value for member in part]
            enumerated = True
        elif kind := _kind(typing.get_origin(part) or part):
            kinds.add(kind)
            open_text = open_text or kind == "str"
        else:
            return frozenset(), ()
    choices = tuple(text for text in texts if isinstance(text, str))
    # ``SchedulerType | str`` means the enum's own texts; ``pissa_niter_[number of iters]`` is a pattern.
    closed = (enumerated or not open_text) and not any("[" in text for text in choices)
    return frozenset(kinds), choices if closed else ()


def _alternatives(annotation: Any) -> Iterator[Any]:
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        for each in typing.get_args(annotation):
            yield from _alternatives(each)
    elif hasattr(annotation, "__value__"):  # an alias made with ``type``
        yield from _alternatives(annotation.__value__)
    elif origin is typing.Annotated:
        yield from _alternatives(typing.get_args(annotation)[0])
    else:
        yield type(None) if annotation is None else annotation


def _kind(cls: Any) -> str | None:
    """Return the kind of a class's values; None where a study file cannot write them."""
    if not isinstance(cls, type):
        return None
    return _KINDS.get(cls) or ("dict" if issubclass(cls, dict) else "list" if issubclass(cls, (list, tuple)) else None)
