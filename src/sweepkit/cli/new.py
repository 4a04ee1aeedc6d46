"""Writes the folders of ``sweep new`` and ``sweep task`` from templates; what differs by kind is the task class's."""

from __future__ import annotations

import json
import keyword
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from string import Template
from typing import Any

from sweepkit.check.schema import schema
from sweepkit.cli.request import Request, below, check_folder, check_kind, flow
from sweepkit.study import messages, words
from sweepkit.study.errors import InputError
from sweepkit.tasks.kinds import kind_class
from sweepkit.tasks.load import option_defaults
from sweepkit.tasks.metrics import LOWER_IS_BETTER
from sweepkit.tasks.recognise import Recognised

SCHEMA = "study.schema.json"


def write(request: Request, metric: str = "") -> list[Path]:
    """Write a study folder for the data and return its files, study.yaml first.

    Raises InputError, and writes nothing, if the folder exists or an input is missing.
    """
    folder = request.folder
    check_folder(folder)
    source = request.source()
    if other := [name for name in request.sets if not name.startswith("task.")]:
        raise InputError(
            f"--set {other[0]}: sweep new takes only options of the task; write others into the study file"
        )
    kind = request.options.get("kind", "")
    found = Recognised(kind=kind, options={}, taken="") if kind and "name" in source else request.recognise(source)
    if not found.taken:
        check_kind(kind)
        request.tell("kind", f"{kind}, as {request.data} was not read; name its columns with --set task.COLUMN=NAME")
    model = str(request.sets.get("task.model") or request.model(found.kind))
    metric, direction, options = objective_of(found.kind, metric.removeprefix("eval_"))
    template = kind_class(found.kind).template
    assert template is not None  # every built-in kind has one
    task = {**found.options, **options, **_given(request.sets)}
    values = {
        "name": folder.resolve().name,
        "here": os.path.relpath(folder / "study.yaml"),
        "schema": SCHEMA,
        "task": "".join(_lines(request, found, {"type": found.kind, "model": model, "data": source, **task})),
        "data_shown": request.data,
        "expects": template.data,
        "metric": metric,
        "direction": direction,
        "low": template.learning_rate[0],
        "high": template.learning_rate[1],
    }
    files = {"study.yaml": _filled("new.yaml", values), "README.md": _filled("new.md", values)}
    return _write(folder, files, (found.kind,))


def write_task(folder: Path) -> list[Path]:
    """Write a Task of one's own with a study that trains it as it is, and return the files, study.yaml first.

    Raises InputError, and writes nothing, if the folder exists or its name will not do.
    """
    check_folder(folder, "NAME")
    name = folder.resolve().name
    class_ = "".join(part.capitalize() for part in re.split(r"[^A-Za-z0-9]+", name)).lstrip("0123456789") or "Mine"
    class_ += "Task" if keyword.iskeyword(class_) or class_ == "Task" else ""
    values = {"name": name, "class_": class_, "schema": SCHEMA, "here": os.path.relpath(folder / "study.yaml")}
    return _write(folder, {"study.yaml": _filled("task.yaml", values), "task.py": _filled("task.py.txt", values)})


def _write(folder: Path, files: Mapping[str, str], kinds: Collection[str] = ()) -> list[Path]:
    """Write the files and a schema for editors, with the own arguments of these kinds' Trainers."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {**files, SCHEMA: json.dumps(schema(kinds), indent=1, ensure_ascii=False) + "\n"}
    for file, text in files.items():
        (folder / file).write_text(text, encoding="utf-8")
    return [folder / file for file in files]


def _given(sets: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the task that ``--set`` adds to kind, model and data."""
    task = below("task.", sets)
    columns = {**(task.pop("columns", None) or {}), **below("columns.", task)}
    rest = {name: value for name, value in task.items() if name not in ("type", "model") and "." not in name}
    return {**rest, **({"columns": columns} if columns else {})}


def _lines(request: Request, found: Recognised, task: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of ``task:``, each with a comment."""
    kind, rows = kind_class(found.kind), request.why.get("data", "").rpartition(": ")[2]
    aside = task.get("validation", option_defaults(kind).get("validation", ""))
    about = {
        "type": f"{words.join(list(found.others))} would also fit" if found.others else "a built-in kind",
        "model": "hub id, local folder, or package:NAME/sub/folder",
        "data": rows
        if "validation" in rows or not rows
        else f"{rows}; {aside:.0%} of them are set aside for validation",
        **found.about,
    }
    width = max(len(f"  {name}: {flow(value)}") for name, value in task.items() if name != "data")
    for name, value in task.items():
        comment = about.get(name) or messages.describe(kind, name)
        line = f"  {name}: {flow(value)}"
        yield f"{line:{width}}  # {comment}\n" if comment else f"{line}\n"


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


def _filled(template: str, values: Mapping[str, str]) -> str:
    return Template((Path(__file__).parent / template).read_text(encoding="utf-8")).substitute(values)
