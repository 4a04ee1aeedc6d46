"""Files, folders, extras and the backend's rules: what must be there before a study can start. Asks no network."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sweepkit.check.fields.models import locate
from sweepkit.check.fields.tasks import TaskFacts
from sweepkit.check.rules.names import Consumers, models_of
from sweepkit.check.rules.sharding import check_sharding, find_unsharded
from sweepkit.check.rules.values import mismatch
from sweepkit.study import messages
from sweepkit.study.backends import backends_with
from sweepkit.study.errors import InputError, MissingExtra, Problem, nearest
from sweepkit.study.files import exists
from sweepkit.study.gpus import gpus_here, wrong_gpus
from sweepkit.study.names import parts
from sweepkit.study.paths import project_root
from sweepkit.study.space import visit
from sweepkit.study.study import StudyData
from sweepkit.tasks import quantization, references
from sweepkit.tasks.built_in import BuiltInTask
from sweepkit.tasks.columns import ColumnsTask
from sweepkit.tasks.data import SUFFIXES, columns, columns_of
from sweepkit.tasks.load import option_problems
from sweepkit.tasks.locations import NUMBER
from sweepkit.tasks.metrics import AVERAGED, BUNDLED, ON_THE_HUB, missing
from sweepkit.tasks.separated import other_separator
from sweepkit.tasks.shapes import usual

_DATA_FILES = (*SUFFIXES, ".csv.gz", ".json.gz", ".jsonl.gz")


HUB_ID = 96
"""Characters of the longest name on the hub."""


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
    problems += _models(study, task)
    problems += _metrics(study, task)
    for name, value in given.items():
        if name != "model":
            problems += _files(f"task.{name}", value, study.home)
    return problems


def _models(study: StudyData, task: TaskFacts) -> Iterator[Problem]:
    """Yield models, or tokenizers of models from scratch, that are not where they should be."""
    for path, model in models_of(study, task):
        reference: Any = model.get("tokenizer") if isinstance(model, Mapping) else model
        folder, missing = locate(reference, study.home) if isinstance(reference, str) else (None, None)
        if missing:
            yield Problem(path, missing)
        elif folder is not None and reference == model and not (folder / "config.json").is_file():
            yield Problem(path, f"there is no config.json in {model}")
        elif folder is None and isinstance(reference, str) and len(reference) > HUB_ID:
            yield Problem(
                path, f"is no folder, and a name on the hub has at most {HUB_ID} characters, got {len(reference)}"
            )
        elif folder is None and isinstance(reference, str) and study.task.type and (variable := references.offline()):
            where = references.cache("hub", "HF_HUB_CACHE")
            yield Problem(path, f"{reference} is not in {where}, and {variable} forbids downloading it")


def _built_in(study: StudyData, consumers: Consumers) -> Iterator[Problem]:
    assert consumers.task is not None
    cls, given = consumers.task.built_in, study.task.options
    searched = {f"task.{name}" for each in visit(study.space) if (name := each.name.removeprefix("task.")) not in given}
    try:
        task = cls.model_validate_json(json.dumps(given), strict=True)
    except TypeError:
        return  # objects of a study made in Python; the task itself checks them
    except ValidationError as error:
        for path, message in option_problems(cls, given, error, str(study.task.type)).items():
            if path not in searched:
                yield Problem(path, message)
    else:
        if not isinstance(task, BuiltInTask):
            return
        yield from _data(task, study.home, searched)
        yield from _needs(task, {*study.training, *(each.name for each in visit(study.space))})


def _needs(task: BuiltInTask, names: Collection[str]) -> Iterator[Problem]:
    """Yield what the task's options need: other values of the study, or a package."""
    if task.source.streaming and "max_steps" not in names:
        yield Problem("training.max_steps", "needed where task.data is streamed: the length of a trial in steps")
    if task.quantization is None:
        return
    if reason := quantization.missing():
        yield Problem("task.quantization", reason)
    if not any(parts(name)[0] == "peft" for name in names):
        advice = "add an adapter, for example peft.r: 16 in training"
        yield Problem("task.quantization", f"quantized weights are not trained themselves; {advice}")


def _data(task: BuiltInTask, home: Path, searched: set[str]) -> Iterator[Problem]:
    """Yield data sets that cannot be loaded without the network, and columns that the files do not have."""
    yield from _absent(task, home)
    try:
        found = columns(task.source, home)
    except (InputError, OSError, ValueError, csv.Error):
        return  # a missing file has its own problem; the others are met with more to say when the data is prepared
    if isinstance(task, ColumnsTask) and not {"task.columns", "task.data"} & searched:
        key = "task.columns" if task.columns else "task.data"
        for file, names in found.values():
            if wrong := task.unfit(names):
                yield Problem(key, f"{os.path.relpath(file, home)}: {wrong}")
    for option, wanted, column in columns_of(task):
        if f"task.{option}" in searched:
            continue
        for split, (file, names) in found.items():
            missing = [each for each in wanted if each not in names and each.partition(".")[0] not in names]
            if missing and not (split == "test" and column.label):
                advice = _advice(task, option, missing[0], names)
                listed = f"{', '.join(map(str, names[:20]))}{advice}"
                message = f"{os.path.relpath(file, home)} has no column {missing[0]}; its columns are {listed}"
                yield Problem(f"task.{option}", message)
                break


def _absent(task: BuiltInTask, home: Path) -> Iterator[Problem]:
    """Yield a data set of the hub that is not here and may not be downloaded."""
    name, variable = task.source.name, references.offline("HF_DATASETS_OFFLINE")
    beside = any(exists(folder / name) for folder in (Path.cwd(), home, project_root(home))) if name else False
    if name is not None and variable and not beside and not references.downloaded_data(name):
        where = references.cache("datasets", "HF_DATASETS_CACHE")
        yield Problem("task.data.name", f"{name} is not in {where}, and {variable} forbids downloading it")


def _advice(task: BuiltInTask, option: str, missing: str, names: Sequence[str]) -> str:
    """Return what to write where a file has no column of this name."""
    if len(names) == 1 and (mark := other_separator(names[0])):
        return f"; set task.data.separator: {json.dumps(mark)}"
    if near := nearest(missing, names):
        return near
    shapes = task.template.shapes if task.template else ()
    if column := usual(shapes, option, names):
        return f"; write {option}: {column}"
    unnamed = any(NUMBER.fullmatch(name.strip()) for name in names)
    columns = (
        f"; if that is a row, name them: task.data.columns: [text{', label' * (len(names) > 1)}]" if unnamed else ""
    )
    return columns or f"; name one of them in task.{option}"


_SHORT = {"mcc": "matthews_correlation", "r2": "r_squared", "bleu": "sacrebleu", "rouge": "rougeL"}


def _metrics(study: StudyData, task: TaskFacts) -> Iterator[Problem]:
    """Yield metrics that cannot be loaded."""
    metrics = study.task.options.get("metrics", task.options["metrics"].default)
    if {"compute_metrics", "trainer"} & task.overridden or not isinstance(metrics, (list, tuple)):
        return  # then metrics are whatever the task's own method returns
    own = () if "decide" in task.overridden else task.built_in.compares
    bundled = [name for name, functions in BUNDLED.items() if not own or any(kind in functions for kind in own)]
    for index, entry in enumerate(metrics):
        name = next(iter(entry), None) if isinstance(entry, Mapping) else entry
        if not isinstance(name, str) or exists(study.home / Path(name).expanduser()):
            continue
        if wrong := _metric(name, bundled, task, study.home):
            yield Problem(f"task.metrics[{index}]", wrong)


def _metric(name: str, bundled: Sequence[str], task: TaskFacts, home: Path) -> str:
    """Return why a metric cannot be loaded; empty where it can."""
    if name in bundled:
        return str(missing([name]) or "")
    if name in task.built_in.model_fields["metrics"].default:
        return ""
    if name in BUNDLED:
        return f"compares {' or '.join(BUNDLED[name])}; those of {task.label} are {', '.join(bundled)}"
    if name.endswith(".py"):
        return f"there is no file {name} (looked in {home})"
    if "/" not in name and name not in ON_THE_HUB:
        return f"there is no metric {name}{_other(name, bundled)}"
    variable = references.offline()
    if variable and not references.downloaded_metric(name):
        return f"{name} is not bundled, and {variable} forbids downloading it"
    return ""


def _other(name: str, bundled: Sequence[str]) -> str:
    """Return what to write in place of a metric that does not exist."""
    words = name.split("_")
    average = next((word for word in words if word in ("macro", "micro", "weighted", "binary")), None)
    if average and (base := next((word for word in words if word in AVERAGED), None)):
        return f"; write {{{base}: {{average: {average}}}}}"
    return messages.near(_SHORT.get(name, name), (*bundled, *ON_THE_HUB)) or f"; bundled are {', '.join(bundled)}"


def _files(path: str, value: Any, home: Path) -> Iterator[Problem]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _files(f"{path}.{key}", each, home)
    elif isinstance(value, (list, tuple)):
        for index, each in enumerate(value):
            yield from _files(f"{path}[{index}]", each, home)
    elif isinstance(value, str) and (
        value.startswith(references.PACKAGE) or (value.lower().endswith(_DATA_FILES) and not references.is_url(value))
    ):
        try:
            references.find_all([value], home)
        except InputError as error:
            yield Problem(path, str(error))


def find_shortages(study: StudyData) -> list[Problem]:
    """Return what the study needs and this machine lacks: warnings, for it may run on another one."""
    if not study.backend.kind.here:
        return []
    gpus, here, found = study.resources.gpus_per_trial, gpus_here(), list[Problem]()
    if gpus != 0 and (wrong := wrong_gpus()):
        found.append(
            Problem("backend.gpus_per_trial", f"{wrong}; {'sweep run refuses it' if here else 'trials use CPUs'}")
        )
    if (needed := study.resources.gpus(found=bool(here))) > len(here):
        there = f"this machine has {len(here) or 'no GPU'}; sweep run refuses the study here"
        found.append(Problem("backend.gpus_per_trial", f"a trial needs {needed:g}, {there}"))
    found += find_unsharded(study)
    return found


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
    problems += check_sharding(study)
    if not backend.kind.installed:
        problems.append(Problem("backend.type", str(MissingExtra(f"the {backend.type} backend", backend.kind.needs))))
    if study.storage != "journal" and "://" not in study.storage:
        hint = nearest(study.storage, ["journal"])
        if study.storage.endswith((".db", ".sqlite", ".sqlite3")):
            hint = f"; write sqlite:///{study.storage}"
        problems.append(Problem("storage", f"expected journal or an Optuna storage URL, got {study.storage}{hint}"))
    return problems
