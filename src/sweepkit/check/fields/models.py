"""Finds a model's files and reads its configuration fields, without the network."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sweepkit.check.fields.classes import Field, read_class, signature
from sweepkit.check.fields.modules import UNKNOWN, kept, literal, parse
from sweepkit.study.errors import InputError
from sweepkit.tasks.references import downloaded_model, find_model, package_folder

_IDENTITY = frozenset({"model_type", "architectures", "transformers_version", "name_or_path", "torch_dtype"})
"""Metadata in a configuration, which are not hyperparameters."""


def locate(model: str, home: Path) -> tuple[Path | None, str | None]:
    """Return (folder, problem) for ``package:NAME/sub/folder``, a local folder or a hub id.

    Both are None for a hub id that was never downloaded.
    """
    try:
        return find_model(model, home) or downloaded_model(model), None
    except InputError as error:
        return None, str(error)


def model_fields(model: str | Mapping[str, Any], home: Path) -> Mapping[str, Field] | None:
    """Return the configuration fields of a model; None where its configuration cannot be read from here.

    A mapping is a model from scratch: ``{config: {model_type: …, …}, …}``.
    """
    if isinstance(model, Mapping):
        config = model.get("config")
        return _with_values(config) if isinstance(config, Mapping) else None
    folder, _ = locate(model, home)
    return _fields_of(folder / "config.json") if folder else None


@kept
def _fields_of(file: Path) -> Mapping[str, Field] | None:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return _with_values(values) if isinstance(values, dict) else None


def _with_values(values: Mapping[str, Any]) -> Mapping[str, Field] | None:
    """Return the fields of a configuration's class, with its own values as defaults."""
    model_type = values.get("model_type")
    declared = configuration_fields(model_type) if isinstance(model_type, str) and "auto_map" not in values else None
    if declared is None:
        return None
    fields = dict(declared)
    for name, value in values.items():
        old = fields.get(name, Field(name))
        fields[name] = Field(name, old.kinds, value, old.choices)
    tunable = {name: field for name, field in fields.items() if name not in _IDENTITY and not name.startswith("_")}
    return MappingProxyType(tunable)


@kept
def configuration_fields(model_type: str) -> Mapping[str, Field] | None:
    """Return the fields of a model type's configuration class in the installed transformers; None for unknown types."""
    folder = package_folder("transformers")
    tables = _tables(folder) if folder else {}
    class_name = tables.get("CONFIG_MAPPING_NAMES", {}).get(model_type)
    if folder is None or class_name is None:
        return None
    module = tables.get("SPECIAL_MODEL_TYPE_TO_MODULE_NAME", {}).get(model_type, model_type).replace("-", "_")
    for file in sorted((folder / "models" / module).glob("configuration_*.py")):
        found = read_class(file, class_name)
        if found is not None:
            fields = dict(found.fields)
            if "__init__" in found.methods:
                fields = {**fields, **signature(found.methods["__init__"])}
            for name, method in found.methods.items():
                if any(ast.unparse(mark) == f"{name}.setter" for mark in method.node.decorator_list):
                    fields.setdefault(name, Field(name))
            for alias, name in dict(found.constants.get("attribute_map", {})).items():
                target = fields.get(name, Field(name))
                fields.setdefault(alias, Field(alias, target.kinds, target.default, target.choices))
            return MappingProxyType(fields)
    return None


@kept
def _tables(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the tables of transformers' auto classes: model type → class, model type → module."""
    tables: dict[str, dict[str, Any]] = {}
    auto = folder / "models" / "auto"
    for file in (auto / "auto_mappings.py", auto / "configuration_auto.py"):
        for node in parse(file).body if file.is_file() else ():
            value = node.value if isinstance(node, (ast.Assign, ast.Expr)) else None
            if not isinstance(value, ast.Call):
                continue
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                name = node.targets[0].id
            elif isinstance(value.func, ast.Attribute) and value.func.attr == "update":
                name = ast.unparse(value.func.value)
            else:
                continue
            for argument in _arguments(value):
                found = literal(argument)
                if found is not UNKNOWN and isinstance(found, (dict, list)):
                    tables.setdefault(name, {}).update(found)
    return tables


def _arguments(call: ast.Call) -> Iterator[ast.expr]:
    yield from call.args
    yield from (keyword.value for keyword in call.keywords if keyword.arg is None)
