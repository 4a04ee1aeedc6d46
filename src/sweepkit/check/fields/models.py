"""Finds a model's files and reads its configuration, without the network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweepkit.check.fields.describe import Field
from sweepkit.study.errors import InputError
from sweepkit.tasks.references import downloaded_model, find_model

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


def configuration(model: str | Mapping[str, Any], home: Path) -> Mapping[str, Any] | None:
    """Return a model's configuration with its ``model_type``; None where it cannot be read from here.

    A mapping is a model from scratch: ``{config: {model_type: …, …}, …}``.
    """
    values = model.get("config") if isinstance(model, Mapping) else _in_folder(locate(model, home)[0])
    known = isinstance(values, Mapping) and "auto_map" not in values and isinstance(values.get("model_type"), str)
    return values if known else None


def _in_folder(folder: Path | None) -> Any:
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8")) if folder else None
    except (OSError, ValueError):
        return None


def with_values(fields: Mapping[str, Field], values: Mapping[str, Any]) -> dict[str, Field]:
    """Return the fields of a configuration's class with the configuration's own values as defaults."""
    found = dict(fields)
    for name, value in values.items():
        old = found.get(name, Field(name))
        found[name] = Field(name, old.kinds, value, old.choices)
    return {name: field for name, field in found.items() if name not in _IDENTITY and not name.startswith("_")}
