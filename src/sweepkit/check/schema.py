"""The reference of study files from their fields' docstrings: a JSON schema for editors, and text for people."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from sweepkit.check.fields import UNKNOWN, Field
from sweepkit.check.fields.installed import installed, peft_fields
from sweepkit.study.parameters import Choice, Expression, Float, Int
from sweepkit.study.study import StudyData
from sweepkit.tasks.arguments import owned
from sweepkit.tasks.kinds import KINDS, kind_class

_JSON = {
    "bool": "boolean",
    "int": "integer",
    "float": "number",
    "str": "string",
    "dict": "object",
    "list": "array",
    "none": "null",
}


def schema() -> dict[str, Any]:
    """Return the JSON schema of a study file (draft 2020-12); TrainingArguments and PEFT's methods are those installed."""
    found = _open_unions(StudyData.model_json_schema(by_alias=True))
    kinds = [{"$ref": f"#/$defs/{cls.__name__}"} for cls in (Float, Int, Choice, Expression)]
    parameter, inside = {"anyOf": kinds}, {"anyOf": [*kinds, {"$ref": "#/$defs/Inside"}]}
    found["$defs"]["Inside"] = {"type": "object", "properties": {}, "additionalProperties": inside, "minProperties": 1}
    properties = found["properties"]
    for name, field in StudyData.model_fields.items():
        # Where pydantic refers to a section's class, it leaves out the key's own description.
        properties[field.alias or name].setdefault("description", field.description)
    found["$defs"]["TaskSpec"]["properties"]["type"]["anyOf"][0]["enum"] = list(KINDS)
    names = dict(_fields())
    properties["training"]["properties"] = {name: _json(field) for name, field in names.items()}
    properties["space"]["properties"] = {
        name: inside if not field.kinds or "dict" in field.kinds else parameter for name, field in names.items()
    }
    properties["space"]["additionalProperties"] = inside
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **found,
        "title": "sweepkit study",
        "description": (StudyData.__doc__ or "").strip(),
    }


def _fields() -> Iterator[tuple[str, Field]]:
    found = installed()
    yield from ((name, field) for name, field in found.training.items() if owned(name) is None)
    peft = peft_fields(found.adapters, found.adapters) if found.adapters else {}
    yield from ((f"peft.{name}", field) for name, field in peft.items())


def _json(field: Field) -> dict[str, Any]:
    result: dict[str, Any] = {"type": [_JSON[kind] for kind in sorted(field.kinds)]} if field.kinds else {}
    if field.choices and field.kinds <= {"str", "none"}:
        result["enum"] = [*field.choices, *([None] if "none" in field.kinds else [])]
    if field.default is not UNKNOWN:
        result["default"] = field.default
    return result


def _open_unions(node: Any) -> Any:
    """Replace ``oneOf``, which pydantic writes for parameters: every parameter is also a valid constant."""
    if isinstance(node, dict):
        return {("anyOf" if key == "oneOf" else key): _open_unions(value) for key, value in node.items()}
    return [_open_unions(each) for each in node] if isinstance(node, list) else node


def explain() -> str:
    """Return the reference of the study file as Markdown: every key with its default and its meaning."""
    lines = ["# Study file", "", *_section(StudyData), "", "## space: parameters", ""]
    for parameter in (Float, Int, Choice, Expression):
        lines += _about(parameter.__name__, parameter)
    lines += ["## task: options of the built-in kinds", ""]
    parts: dict[str, type[BaseModel]] = {}
    for kind in KINDS:
        task = kind_class(kind)
        lines += _about(kind, task)
        for option, field in task.model_fields.items():
            for part in _models(field.annotation):
                parts[f"task.{field.alias or option}"] = part
    for option, part in parts.items():
        lines += _about(option, part)
    return "\n".join(lines).rstrip() + "\n"


def _said(model: type[BaseModel]) -> str:
    """Return what a class's docstring says to people who write studies: nothing about its methods, no examples."""
    paragraphs = (" ".join(each.split()) for each in (model.__doc__ or "").split("\n\n"))
    return " ".join(each for each in paragraphs if not each.startswith((">>>", "Its methods")))


def _about(title: str, model: type[BaseModel]) -> list[str]:
    return [f"### {title}", "", _said(model), "", *_rows(model), ""]


def _section(model: type[BaseModel], path: str = "") -> list[str]:
    lines = [_said(model), "", *_rows(model)]
    for name, field in model.model_fields.items():
        for inner in _models(field.annotation):
            where = f"{path}{field.alias or name}"
            if inner not in (Float, Int, Choice, Expression):
                lines += ["", f"## {where}", "", *_section(inner, f"{where}.")]
    return lines


def _rows(model: type[BaseModel]) -> list[str]:
    rows = []
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True) if not field.is_required() else PydanticUndefined
        plain = isinstance(default, (bool, int, float, str)) and default != ""
        note = (
            " (needed)"
            if field.is_required()
            else f" (default {str(default).lower() if isinstance(default, bool) else default})"
            if plain
            else ""
        )
        rows.append(f"- `{field.alias or name}`{note}: {' '.join((field.description or '').split())}")
    return rows


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
