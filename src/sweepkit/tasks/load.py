"""Loads a study's ``task:`` section as a Task: a built-in kind, a class in a file, or a pickled class."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from sweepkit.study import messages
from sweepkit.study.errors import InputError, MissingExtra, nearest
from sweepkit.study.files import exists, first_line
from sweepkit.study.identity import missing_secret
from sweepkit.study.modules import import_file
from sweepkit.study.names import nest
from sweepkit.study.secrets import HIDDEN, secret_name
from sweepkit.study.study import StudyData, TaskSpec
from sweepkit.tasks.by_value import loads
from sweepkit.tasks.kinds import KINDS, kind_class
from sweepkit.tasks.references import package_folder
from sweepkit.tasks.task import Task

EXTRAS: Mapping[str, str] = {"trl": "trl", "sentence_transformers": "embed"}
"""Package with a Trainer of its own → the extra that installs it."""


def task_class(spec: TaskSpec, home: Path) -> type[Task]:
    """Return the class behind ``type:``, ``path:`` or ``pickle:``. Raises InputError."""
    if spec.type is not None:
        if spec.type not in KINDS:
            raise InputError(
                f"task.type: unknown kind {spec.type}; built-in kinds are {', '.join(KINDS)}{nearest(spec.type, KINDS)}"
            )
        return kind_class(spec.type)
    if spec.pickle is not None:
        return loads(home / spec.pickle, home)
    try:
        return class_in(*task_file(spec.path or "", home))
    except InputError as error:
        raise InputError(f"task.path: {error}") from error


def task_file(path: str, home: Path) -> tuple[Path, str]:
    """Return the file and the name of the class in ``file.py:Class``. Raises InputError."""
    where, _, name = path.rpartition(":")
    if not where.endswith(".py") or not name.isidentifier():
        raise InputError(f"expected file.py:Class, got {path}")
    file = (home / Path(where).expanduser()).resolve()
    if not exists(file) or not file.is_file():
        raise InputError(f"there is no file {where} (looked in {home})")
    return file, name


def class_in(file: Path, name: str) -> type[Task]:
    """Return a Task class of a Python file. Raises InputError, also for whatever the file raises."""
    module = import_file(file)
    classes = {key: value for key, value in vars(module).items() if isinstance(value, type)}
    tasks = {key: value for key, value in classes.items() if issubclass(value, Task) and value is not Task}
    if name in tasks:
        return tasks[name]
    if hasattr(module, name):
        raise InputError(f"{name} in {file.name} is not a subclass of sweepkit.Task")
    listed = f"; its tasks are {', '.join(tasks)}" if tasks else "; it defines no Task"
    raise InputError(f"{file.name} has no class {name}{nearest(name, tasks) or listed}")


def arguments_class(path: str) -> type[Any]:
    """Return a subclass of TrainingArguments by any path it can be imported by: ``module:Class``. Raises InputError."""
    from transformers import TrainingArguments

    module, _, name = path.partition(":")
    if not name:
        module, _, name = path.rpartition(".")
        raise InputError(f"expected module:Class, got {path}{f'; did you mean {module}:{name}?' if module else ''}")
    package = module.partition(".")[0]
    if package in EXTRAS and package_folder(package) is None:
        raise MissingExtra(path, EXTRAS[package])
    found: Any = None
    try:
        found = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # a person's module may raise anything
        hint = nearest(part, dir(found)) if found is not None else ""
        raise InputError(f"{path} cannot be imported: {first_line(error)}{hint}") from error
    if not isinstance(found, type) or not issubclass(found, TrainingArguments):
        raise InputError(f"{path} is not a subclass of transformers.TrainingArguments")
    return found


def load_task(
    spec: TaskSpec,
    home: Path,
    options: Mapping[str, Any] | None = None,
    *,
    kind: type[Task] | None = None,
    trust_remote_code: bool = False,
) -> Task:
    """Return a study's task; ``options``, a trial's ``task.*`` values without prefix, override its fixed ones.

    Values are read strictly, as JSON: a path may be text, but "3" is not a number and 1.0 not a whole number. ``kind``
    replaces the class that the study names. Raises InputError with every wrong option.
    """
    cls = kind or task_class(spec, home)
    values = {**spec.options, **(options or {})}
    if lost := [name for name, value in values.items() if value == HIDDEN and secret_name(name)]:
        raise missing_secret(f"task.{lost[0]}")
    if any("." in name for name in values):
        values = nest(values, option_defaults(cls).get)
    try:
        text: str | None = json.dumps(values)
    except (TypeError, ValueError):  # Python objects from a notebook
        text = None
    try:
        task = cls.model_validate(values, strict=True) if text is None else cls.model_validate_json(text, strict=True)
    except ValidationError as error:
        problems = option_problems(cls, values, error, cls.__name__)
        raise InputError("\n".join(f"{path}: {message}" for path, message in problems.items())) from error
    task._home = home.resolve()
    task._trust_remote_code = trust_remote_code
    return task


def task_of(study: StudyData, options: Mapping[str, Any] | None = None, *, kind: type[Task] | None = None) -> Task:
    """Return a study's task with these options over its fixed ones; see :func:`load_task`."""
    return load_task(study.task, study.home, options, kind=kind, trust_remote_code=study.trust_remote_code)


def option_names(cls: type[Task]) -> list[str]:
    """Return the names of a task's options, as a study writes them."""
    return [field.alias or name for name, field in cls.model_fields.items()]


def option_defaults(cls: type[Task]) -> dict[str, Any]:
    """Return option → default, as JSON-compatible data, for the options that have one."""
    fields = cls.model_fields.items()
    found = {f.alias or name: f.get_default(call_default_factory=True) for name, f in fields if not f.is_required()}
    try:
        plain = TypeAdapter(dict[str, Any]).dump_python(found, mode="json")
    except ValueError:  # a default that JSON does not know
        return found
    return {
        key: (found[key] if isinstance(found[key], float) and math.isinf(found[key]) else plain[key]) for key in found
    }


def option_problems(cls: type[Task], values: Mapping[str, Any], error: ValidationError, label: str) -> dict[str, str]:
    """Return path in the study → message for each wrong option; ``label`` is what messages call the task."""
    groups: dict[tuple[str | int, ...], list[ErrorDetails]] = {}
    for each in error.errors(include_url=False):
        keys = tuple(part for part in each["loc"] if isinstance(part, int) or _is_key(part, each["loc"], values))
        groups.setdefault(keys, []).append(each)
    problems = {}
    for keys, errors in groups.items():
        value, meant = errors[0]["input"], ""
        if keys == ("data",) and isinstance(value, str):
            meant = f"; write data: {{{'path' if '.' in value else 'name'}: {value}}}"
        message = messages.sentence(errors, messages.section(cls, keys[:-1]), meant)
        if errors[0]["type"] == "extra_forbidden" and len(keys) == 1:
            name, known = str(keys[0]), option_names(cls)
            message = f"{label} has no option {name}{nearest(name, known) or '; its options are ' + ', '.join(known)}"
        problems[".".join(["task", *map(str, keys)])] = message
    return problems


def _is_key(part: str, loc: tuple[int | str, ...], values: Mapping[str, Any]) -> bool:
    """Whether a part of pydantic's location is a key of the study, not the tag of a union."""
    if part == loc[0]:
        return True
    node: Any = values
    for each in loc[:-1]:
        if isinstance(node, Mapping) and each in node:
            node = node[each]
    return isinstance(node, Mapping) and (part in node or part == loc[-1]) and "[" not in part
