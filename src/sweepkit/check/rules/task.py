"""Files, folders, extras and the backend's rules: what must be there before a study can start. Asks no network."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sweepkit.check.fields.models import locate
from sweepkit.check.rules.names import Consumers, models_of
from sweepkit.check.rules.values import mismatch
from sweepkit.study import messages
from sweepkit.study.backends import backends_with
from sweepkit.study.errors import InputError, MissingExtra, Problem, nearest
from sweepkit.study.space import visit
from sweepkit.study.study import StudyData
from sweepkit.tasks import references
from sweepkit.tasks.data import SUFFIXES

_DATA = (*SUFFIXES, ".csv.gz", ".json.gz", ".jsonl.gz")


def check_task(study: StudyData, consumers: Consumers) -> list[Problem]:
    """Return what is wrong with the task's fixed options, its model's folder and its data files."""
    task, given = consumers.task, study.task.options
    if task is None:
        return []
    problems: list[Problem] = []
    if study.task.type is not None:
        problems += _built_in(study, consumers)
    else:
        for name, value in given.items():
            field, complaint = consumers.resolve(f"task.{name}")
            if wrong := complaint if field is None else mismatch(name, field, value):
                problems.append(Problem(f"task.{name}", wrong))
        searched = {each.name.removeprefix("task.") for each in visit(study.space)}
        problems += [
            Problem("task", f"{task.label} needs {name}")
            for name, field in task.options.items()
            if field.required and name not in given and name not in searched
        ]
    for path, model in models_of(study, task):
        if not isinstance(model, str):
            continue
        folder, missing = locate(model, study.home)
        if missing:
            problems.append(Problem(path, missing))
        elif folder is not None and not (folder / "config.json").is_file():
            problems.append(Problem(path, f"there is no config.json in {model}"))
    for name, value in given.items():
        if name != "model":
            problems += _files(f"task.{name}", value, study.home)
    return problems


def _built_in(study: StudyData, consumers: Consumers) -> Iterator[Problem]:
    assert consumers.task is not None
    cls, given = consumers.task.built_in, study.task.options
    searched = {each.name.removeprefix("task.") for each in visit(study.space)}
    try:
        cls.model_validate_json(json.dumps(given), strict=True)
    except TypeError:
        return  # objects of a study made in Python; the task itself checks them
    except ValidationError as error:
        groups: dict[str, list[Any]] = {}
        keys_of: dict[str, list[str | int]] = {}
        for each in error.errors(include_url=False):
            keys = [part for part in each["loc"] if isinstance(part, int) or _written(str(part), each["loc"], given)]
            if each["type"] == "missing" and each["loc"] and each["loc"][0] in searched:
                continue
            path = ".".join(["task", *map(str, keys)])
            keys_of[path] = keys
            groups.setdefault(path, []).append(each)
        for path, errors in groups.items():
            top = len(errors[0]["loc"]) == 1
            if top and errors[0]["type"] == "extra_forbidden":
                name = str(errors[0]["loc"][0])
                listed = f"; its options are {', '.join(consumers.task.options)}"
                hint = nearest(name, consumers.task.options) or listed
                yield Problem(path, f"{study.task.type} has no such option{hint}")
            else:
                section = cls if top else messages.section(cls, keys_of[path][:-1])
                yield Problem(path, messages.sentence(errors, section))


def _written(part: str, loc: tuple[int | str, ...], given: Mapping[str, Any]) -> bool:
    """Whether a piece of pydantic's location is a key of the study file, not the tag of a union."""
    if part == loc[0]:
        return True
    node: Any = given
    for each in loc[:-1]:
        if isinstance(node, Mapping) and each in node:
            node = node[each]
    return isinstance(node, Mapping) and (part in node or part == loc[-1]) and "[" not in part


def _files(path: str, value: Any, home: Path) -> Iterator[Problem]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _files(f"{path}.{key}", each, home)
    elif isinstance(value, (list, tuple)):
        for index, each in enumerate(value):
            yield from _files(f"{path}[{index}]", each, home)
    elif isinstance(value, str) and (
        value.startswith(references.PACKAGE) or (value.lower().endswith(_DATA) and not references.is_url(value))
    ):
        try:
            references.find_all([value], home)
        except InputError as error:
            yield Problem(path, str(error))


def check_backend(study: StudyData) -> list[Problem]:
    """Return what is wrong with the backend's keys and the storage."""
    backend, problems = study.backend, []
    for name in ("address", "path"):
        if not backend.kind.cluster and getattr(backend, name) is not None:
            message = f"belongs to backend.type {backends_with('cluster')}, got {backend.type}"
            problems.append(Problem(f"backend.{name}", message))
    gpus, ranks = backend.gpus_per_trial, backend.ranks_per_trial
    if isinstance(gpus, (int, float)):
        if gpus > 1 and gpus != int(gpus):
            problems.append(
                Problem("backend.gpus_per_trial", f"expected a fraction below 1 or a whole number, got {gpus}")
            )
        elif ranks > 1 and gpus % ranks:
            message = f"{ranks} ranks share whole GPUs; expected 0 or a multiple of {ranks}, got {gpus:g}"
            problems.append(Problem("backend.gpus_per_trial", message))
    if not backend.kind.installed:
        problems.append(Problem("backend.type", str(MissingExtra(f"the {backend.type} backend", backend.kind.needs))))
    if study.storage != "journal" and "://" not in study.storage:
        hint = nearest(study.storage, ["journal"])
        problems.append(Problem("storage", f"expected journal or an Optuna storage URL, got {study.storage}{hint}"))
    return problems
