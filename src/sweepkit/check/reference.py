"""The reference of study files from their fields' docstrings, as text for people."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel

from sweepkit.study.parameters import Choice, Expression, Float, Int
from sweepkit.study.study import StudyData
from sweepkit.tasks.kinds import KINDS, kind_class


class Row(NamedTuple):
    """A key of the study file, as the reference tells it."""

    key: str
    type: str
    default: str
    """``needed`` where there is none; empty where leaving it out means nothing is set."""
    meaning: str


class Part(NamedTuple):
    """A section of the reference: its heading's level, its name, what it is, and its keys."""

    level: int
    title: str
    meaning: str
    rows: list[Row]


def parts() -> Iterator[Part]:
    """Yield the reference of the study file, section by section, in the order of the file."""
    yield from _sections(StudyData)
    yield Part(2, "space: parameters", "", [])
    for parameter in (Float, Int, Choice, Expression):
        yield _part(3, parameter.__name__, parameter)
    yield Part(2, "task: options of the built-in kinds", "", [])
    inner: dict[str, type[BaseModel]] = {}
    for kind in KINDS:
        task = kind_class(kind)
        yield _part(3, kind, task)
        for option, field in task.model_fields.items():
            for each in _models(field.annotation):
                inner[f"task.{field.alias or option}"] = each
    for option, model in inner.items():
        yield _part(3, option, model)


def explain() -> str:
    """Return the reference of the study file as text: every key with its type, its default and its meaning."""
    lines = []
    for part in parts():
        lines += [f"{'#' * part.level} {part.title}", "", *([part.meaning, ""] if part.meaning else [])]
        for row in part.rows:
            default = row.default if row.default in ("", "needed") else f"default {row.default}"
            note = ", ".join(each for each in (row.type, default) if each)
            lines.append(f"- `{row.key}` ({note}): {row.meaning}")
        lines += [""] if part.rows else []
    return "\n".join(lines).rstrip() + "\n"


def _said(model: type[BaseModel]) -> str:
    """Return what a class's docstring says to people who write studies: nothing about its methods, no examples."""
    paragraphs = (" ".join(each.split()) for each in (model.__doc__ or "").split("\n\n"))
    return " ".join(each for each in paragraphs if not each.startswith((">>>", "Its methods")))


def _part(level: int, title: str, model: type[BaseModel]) -> Part:
    return Part(level, title, _said(model), list(_rows(model)))


def _sections(model: type[BaseModel], path: str = "") -> Iterator[Part]:
    yield _part(2 if path else 1, path or "Study file", model)
    for name, field in model.model_fields.items():
        for inner in _models(field.annotation):
            if inner not in (Float, Int, Choice, Expression):
                yield from _sections(inner, f"{path}.{field.alias or name}".lstrip("."))


def _rows(model: type[BaseModel]) -> Iterator[Row]:
    found = model.model_json_schema(by_alias=True)
    types = found.get("properties") or found["$defs"][model.__name__]["properties"]  # a class that holds itself
    for name, field in model.model_fields.items():
        key = field.alias or name
        default = field.get_default(call_default_factory=True) if not field.is_required() else "needed"
        plain = isinstance(default, (bool, int, float, str))
        told = str(default).lower() if isinstance(default, bool) else str(default) if plain else ""
        yield Row(
            key, " or ".join(dict.fromkeys(_types(types[key]))), told, " ".join((field.description or "").split())
        )


_TYPES = {"object": "mapping", "array": "list", "string": "text"}
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def _types(entry: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a key's value may be, in words; null, which leaving the key out stands for, is left out."""
    if alternatives := entry.get("anyOf") or entry.get("oneOf"):
        for each in alternatives:
            yield from _types(each)
    elif "const" in entry:
        yield str(entry["const"])
    elif len(entry.get("enum", range(9))) <= 4:
        yield from map(str, entry["enum"])
    elif "type" not in entry:
        yield "mapping" if "$ref" in entry else "any value"
    elif entry["type"] != "null":
        bounds = [f" {sign} {entry[name]:g}" for name, sign in _BOUNDS.items() if name in entry]
        yield _TYPES.get(entry["type"], entry["type"]) + " and".join(bounds)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    seen: list[type[BaseModel]] = []
    for argument in typing.get_args(annotation):
        for model in _models(argument):
            if model not in seen:
                seen.append(model)
                yield model
