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
from sweepkit.study.backends import backends_with
from sweepkit.study.errors import InputError, MissingExtra, Problem, nearest
from sweepkit.study.space import visit
from sweepkit.study.study import StudyData
from sweepkit.tasks import references
from sweepkit.tasks.data import SUFFIXES
from sweepkit.tasks.load import option_problems

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
    searched = {f"task.{name}" for each in visit(study.space) if (name := each.name.removeprefix("task.")) not in given}
    try:
        cls.model_validate_json(json.dumps(given), strict=True)
    except TypeError:
        return  # objects of a study made in Python; the task itself checks them
    except ValidationError as error:
        for path, message in option_problems(cls, given, error, str(study.task.type)).items():
            if path not in searched:
                yield Problem(path, message)


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
