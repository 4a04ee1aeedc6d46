"""Writes the study folder of ``sweep new`` from ``new.yaml`` and ``new.md``; what differs by kind is the task class's."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from sweepkit.check.schema import schema
from sweepkit.study.errors import InputError, nearest
from sweepkit.study.paths import LONGEST_NAME, NAMING, is_name
from sweepkit.tasks.kinds import KINDS, kind_class
from sweepkit.tasks.load import option_defaults
from sweepkit.tasks.metrics import LOWER_IS_BETTER
from sweepkit.tasks.references import PACKAGE

LOCAL = re.compile(r"^[./~]|\.[A-Za-z]{2,7}$")
"""What looks like a local path rather than a name on the hub."""
SCHEMA = "study.schema.json"


def write(folder: Path, *, kind: str, data: str, model: str, metric: str = "") -> list[Path]:
    """Write a study folder and return the files, study.yaml first.

    ``data`` and ``model`` are paths from the current folder, names on the hub, or ``package:NAME/path``. Raises InputError,
    and writes nothing, if the folder exists or an input is missing.
    """
    check_kind(kind)
    for option, value in (("--data", data), ("--model", model)):
        if not value:
            raise InputError(f"{option} is needed: a local path, a name on the hub, or package:NAME/path")
    name = folder.resolve().name
    if not is_name(name):
        raise InputError(f"{name} cannot name a study; expected {NAMING}, at most {LONGEST_NAME}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} exists already and is not overwritten; choose another name")
    (key, source), *_ = data_reference(data, folder).items()
    values = {
        "name": name,
        "here": os.path.relpath(folder / "study.yaml"),
        "schema": SCHEMA,
        "model": yaml_text(reference(model, folder, "--model")),
        "data": f"{{{key}: {yaml_text(source)}}}",
        "data_shown": data,
        **_by_kind(kind, metric.removeprefix("eval_")),
    }
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "study.yaml": _filled("new.yaml", values),
        "README.md": _filled("new.md", values),
        SCHEMA: json.dumps(schema(), indent=1, ensure_ascii=False) + "\n",
    }
    for file, text in files.items():
        (folder / file).write_text(text, encoding="utf-8")
    return [folder / file for file in files]


def check_kind(kind: str) -> None:
    """Raise InputError for a kind that is not built in."""
    if kind not in KINDS:
        raise InputError(f"--kind: there is no kind {kind}; built in are {', '.join(KINDS)}{nearest(kind, KINDS)}")


def objective_of(kind: str, metric: str) -> tuple[str, str, dict[str, Any]]:
    """Return the metric to optimise, by default the kind's usual one, its direction, and options to show or to add."""
    task = kind_class(kind)
    template = task.template
    assert template is not None  # every built-in kind has one
    metric = metric or template.metric
    reported, options = option_defaults(task)["metrics"], dict(template.options)
    if metric not in (*reported, "loss"):
        options["metrics"] = [*reported, metric]
    return f"eval_{metric}", "minimize" if metric in LOWER_IS_BETTER else "maximize", options


def _by_kind(kind: str, metric: str) -> dict[str, str]:
    """Return what a kind and the metric to optimise put into the files."""
    template = kind_class(kind).template
    assert template is not None  # every built-in kind has one
    metric, direction, options = objective_of(kind, metric)
    shown = {
        name: f"[{', '.join(map(yaml_text, each))}]" if isinstance(each, list) else json.dumps(each)
        for name, each in options.items()
    }
    low, high = template.learning_rate
    return {
        "kind": kind,
        "expects": template.data,
        "options": "".join(f"  {name}: {each}\n" for name, each in shown.items()),
        "metric": metric,
        "direction": direction,
        "low": low,
        "high": high,
    }


def _filled(template: str, values: Mapping[str, str]) -> str:
    return Template((Path(__file__).parent / template).read_text(encoding="utf-8")).substitute(values)


def reference(text: str, folder: Path, option: str) -> str:
    """Return a model or file as the study file in ``folder`` must name it. Raises InputError where it is missing."""
    if text.startswith(PACKAGE) or "://" in text:
        return text
    path = Path(text).expanduser()
    if path.exists():
        relative = os.path.relpath(path.resolve(), folder.resolve())
        return relative if relative.count("..") <= 4 else str(path.resolve())
    if LOCAL.search(text):
        raise InputError(f"{option}: there is no file or folder {text}{_beside(path)}")
    return text


def _beside(path: Path) -> str:
    folder = path.parent
    return nearest(path.name, [other.name for other in folder.iterdir()]) if folder.is_dir() else ""


def data_reference(text: str, folder: Path) -> dict[str, str]:
    """Return ``task.data`` as the study file in ``folder`` must say it. Raises InputError where a file is missing."""
    local = text.startswith(PACKAGE) or "://" in text or Path(text).expanduser().exists()
    return {"path" if local else "name": reference(text, folder, "--data")}


def yaml_text(value: str) -> str:
    """Return a text as YAML reads it back, quoted where it must be."""
    plain = re.fullmatch(r"[A-Za-z_./][A-Za-z0-9_./-]*", value) and value not in ("true", "false", "null")
    return value if plain else json.dumps(value)
