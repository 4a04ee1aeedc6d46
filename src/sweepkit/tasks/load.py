"""A study's ``task:`` becomes a Task: by kind, file or pickle, with its options checked."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError

from sweepkit.study.errors import InputError, nearest
from sweepkit.study.study import TaskSpec
from sweepkit.tasks.by_value import loads
from sweepkit.tasks.files import import_file
from sweepkit.tasks.kinds import KINDS
from sweepkit.tasks.task import Task


def kind_class(kind: str) -> type[Task]:
    """Return the class of a built-in kind; its name is a key of KINDS."""
    module, _, name = KINDS[kind].partition(":")
    found: type[Task] = getattr(importlib.import_module(module), name)
    return found


def task_class(spec: TaskSpec, home: Path) -> type[Task]:
    """Return the class behind ``type:`` or ``path:``. Raises InputError."""
    if spec.type is not None:
        if spec.type not in KINDS:
            raise InputError(
                f"task.type: unknown kind {spec.type}; built in are {', '.join(KINDS)}{nearest(spec.type, KINDS)}"
            )
        return kind_class(spec.type)
    if spec.pickle is not None:
        return loads(home / spec.pickle, home)
    text = spec.path or ""
    where, _, name = text.rpartition(":")
    if not where.endswith(".py") or not name:
        raise InputError(f"task.path: must be file.py:Class, got {text}")
    file = (home / where).expanduser().resolve()
    if not file.is_file():
        raise InputError(f"task.path: there is no file {file}")
    module_object = import_file(file)
    tasks = {
        key: value
        for key, value in vars(module_object).items()
        if isinstance(value, type) and issubclass(value, Task) and value is not Task
    }
    if name in tasks:
        return tasks[name]
    if hasattr(module_object, name):
        raise InputError(f"task.path: {name} in {file} is not a subclass of sweepkit.Task")
    listed = f"; its tasks are {', '.join(tasks)}" if tasks else "; it defines no Task"
    raise InputError(f"task.path: {file} has no {name}{listed}{nearest(name, tasks)}")


def load_task(
    spec: TaskSpec,
    home: Path,
    options: Mapping[str, Any] | None = None,
    *,
    kind: type[Task] | None = None,
    trust_remote_code: bool = False,
) -> Task:
    """Return the task of a study with ``options`` (a trial's ``task.*`` values, without prefix) over its fixed ones.

    Values are taken as JSON means them: a path may be text, but text is no number and 1.0 no whole number. Raises
    InputError with every wrong option. ``kind`` is the class where the study does not say where to find it.
    """
    cls = kind or task_class(spec, home)
    values = {**spec.options, **(options or {})}
    try:
        text: str | None = json.dumps(values)
    except (TypeError, ValueError):  # objects from a notebook, which JSON cannot say
        text = None
    try:
        task = cls.model_validate(values, strict=True) if text is None else cls.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise InputError("\n".join(_problems(cls, error))) from error
    task._home = home.resolve()
    task._trust_remote_code = trust_remote_code
    return task


def option_names(cls: type[Task]) -> list[str]:
    """Return the names of a task's options, as a study writes them."""
    return [field.alias or name for name, field in cls.model_fields.items()]


def option_defaults(cls: type[Task]) -> dict[str, Any]:
    """Return option → default, as plain data, for the options that have one."""
    fields = cls.model_fields.items()
    found = {f.alias or name: f.get_default(call_default_factory=True) for name, f in fields if not f.is_required()}
    try:
        plain = TypeAdapter(dict[str, Any]).dump_python(found, mode="json")
    except ValueError:  # a default that is no plain data
        return found
    return {
        key: (found[key] if isinstance(found[key], float) and math.isinf(found[key]) else plain[key]) for key in found
    }


def _problems(cls: type[Task], error: ValidationError) -> list[str]:
    """Each wrong option in one sentence, beginning with its dotted key in the study."""
    known = option_names(cls)
    lines = []
    for entry in error.errors(include_url=False):
        parts = [str(part) for part in entry["loc"] if not str(part).startswith(("function-", "dict[", "list[", "str"))]
        key = ".".join(["task", *parts])
        if entry["type"] == "extra_forbidden" and len(parts) == 1:
            lines.append(
                f"{key}: {cls.__name__} has no option {parts[0]}{nearest(parts[0], known)} Options: {', '.join(known)}"
            )
        elif entry["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown key{nearest(parts[-1], _keys_at(cls, parts[:-1]))}")
        elif entry["type"] == "missing":
            lines.append(f"{key}: is needed by {cls.__name__}")
        else:
            lines.append(f"{key}: {entry['msg'].removeprefix('Value error, ')}, got {entry['input']!r}")
    return list(dict.fromkeys(lines))


def _keys_at(model: Any, path: list[str]) -> list[str]:
    """The keys that a nested option knows."""
    for part in path:
        field = next((f for name, f in model.model_fields.items() if part in (name, f.alias)), None)
        kinds = [] if field is None else [field.annotation, *get_args(field.annotation)]
        inner = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not inner:
            return []
        model = inner[0]
    return [field.alias or name for name, field in model.model_fields.items()]
