"""Describes the fields and parameters of classes: kinds, closed sets of texts, defaults, and what they mean."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
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
    meaning: str = ""
    """What its class's own documentation says, in a paragraph."""

    def plain(self) -> list[Any]:
        """Return the field as JSON-compatible data."""
        known = [] if self.default is UNKNOWN else [self.default]
        return [sorted(self.kinds), list(self.choices), self.required, known, self.meaning]

    @classmethod
    def read(cls, name: str, plain: list[Any]) -> Field:
        """Return the field that :meth:`plain` wrote."""
        kinds, choices, required, known, meaning = plain
        return cls(name, frozenset(kinds), known[0] if known else UNKNOWN, tuple(choices), required, meaning)


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
                meaning=field.description or "",
            )
            for name, field in cls.model_fields.items()
        }
    elif dataclasses.is_dataclass(cls):
        documented = _documented(cls)
        found = {
            field.name: _field(
                field.name,
                _resolved(field.type, _home(cls, field.name)),
                _default(field),
                field.metadata.get("choices"),
                documented.get(field.name) or _text(field.metadata.get("help")),
            )
            for field in dataclasses.fields(cls)
            if field.init
        }
    else:
        found = parameters_of(cls)
    return {name: field for name, field in found.items() if not name.startswith("_")}


_ARGUMENT = re.compile(r"( *)(\w+) ?(?:\(.*\))?: *(.*)")
_MARKUP = (
    (re.compile(r":\w+:`~?([^`]*)`"), r"`\1`"),  # :obj:`True`
    (re.compile(r"\[`?([^]`]*)`?\]\([^)]*\)"), r"\1"),  # [text](address)
    (re.compile(r"\[`([^]`]*)`\]"), r"`\1`"),  # [`Class`]
    (re.compile(r"`([^`<]*) <[^>]*>`_+"), r"\1"),  # `text <address>`__
    (re.compile(r"``"), "`"),
)


def _documented(cls: type) -> dict[str, str]:
    """Return what the docstrings of a class and its bases say about each argument, in its first paragraph."""
    found: dict[str, str] = {}
    for text in (inspect.cleandoc(base.__doc__ or "") for base in cls.__mro__ if base is not object):
        lines = text.splitlines()
        for index, line in enumerate(lines):
            if match := _ARGUMENT.fullmatch(line):
                margin, name, said = match.groups()
                found.setdefault(name, prose([said, *_deeper(lines[index + 1 :], len(margin))]))
    return found


def _deeper(lines: Iterable[str], margin: int) -> Iterator[str]:
    """Yield the lines of a paragraph that is indented deeper."""
    for line in lines:
        if len(line) - len(line.lstrip()) <= margin or line.strip().startswith((".. ", "> [", ">>>")):
            return
        yield line


def _beginning(text: str, most: int = 300) -> str:
    """Return the first sentences of a text that fit into so many characters; at least one."""
    first, *others = re.split(r"(?<=[.!?]) (?=[A-Z`])", text)
    for sentence in others:
        if len(first) + len(sentence) >= most:
            break
        first += f" {sentence}"
    return first


def _text(told: Any) -> str:
    """Return a field's ``help``; PEFT has one that a stray comma made a tuple."""
    return " ".join(map(str, told)) if isinstance(told, tuple) else str(told or "")


def prose(lines: Iterable[str]) -> str:
    """Return lines as one, without the markup of Sphinx and of links."""
    text = " ".join(" ".join(lines).split())
    for pattern, plain in _MARKUP:
        text = pattern.sub(plain, text)
    return text


def parameters_of(function: Any) -> dict[str, Field]:
    """Return the named parameters of a class or function, without self."""
    written = inspect.unwrap(getattr(function, "__init__", function) if isinstance(function, type) else function)
    home = getattr(written, "__globals__", {})
    documented = _documented(function) if isinstance(function, type) else {}
    return {
        name: _field(
            name,
            _resolved(each.annotation, home),
            _MISSING if each.default is each.empty else each.default,
            meaning=documented.get(name, ""),
        )
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


def _field(name: str, annotation: Any, default: Any, listed: Any = None, meaning: str = "") -> Field:
    kinds, choices = _accepted(annotation)
    if isinstance(listed, (list, tuple)):
        choices = tuple(text for text in listed if isinstance(text, str)) or choices
    known = UNKNOWN if default is _MISSING else _plain(default)
    return Field(name, kinds, known, choices, default is _MISSING, _beginning(prose([meaning])))


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
