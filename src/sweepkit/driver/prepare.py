"""Everything before a study's first trial: the warm process, prepared data, and what only building a trial reveals.

Nothing is recorded yet: a study that cannot run is refused here.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sweepkit.backends.local.executor import Executor
from sweepkit.check.fields.facts import recall, remember
from sweepkit.report.watch import Watcher
from sweepkit.study.configurations import Configurations
from sweepkit.study.errors import InputError, Problem, StudyFailed, StudyFileError
from sweepkit.study.files import write_whole
from sweepkit.study.formulas import derive
from sweepkit.study.gpus import gpus_here
from sweepkit.study.identity import FREE, plain_study
from sweepkit.study.paths import SPEC
from sweepkit.study.space import draw
from sweepkit.study.study import StudyData
from sweepkit.trial.first_steps import Inspected
from sweepkit.trial.trial import TrialSpec

UNSEEN = (FREE | {"name", "sampler", "pruner", "storage"}) - {"backend", "trust_remote_code"}
"""Keys of the study file that a trial's first step does not depend on."""


@dataclass(frozen=True)
class Kept:
    """What first steps have shown, kept until the study, its code, data or model, or an installed package changes."""

    question: tuple[Any, ...] = ()
    """What it depends on besides files; empty where nothing is kept."""
    files: Mapping[str, list[int]] | None = None
    """Files it depends on → modification time (ns) and size; None unless they were read in this run."""
    since: int = 0
    """Time (ns) before they were read."""

    def recall(self, what: str) -> Any:
        """Return what was kept; None where there is nothing, or something changed."""
        return recall((what, *self.question)) if self.question else None

    def keep(self, what: str, facts: Any) -> None:
        """Keep facts, where it is known what they depend on."""
        if self.question and self.files is not None:
            remember((what, *self.question), facts, self.files, since=self.since)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What is known of a study's trials before the first one starts."""

    data: Path | None = None
    """Folder of the prepared data; None where the task stays in this process."""
    peak_memory_mb: float = 0.0
    """Peak memory of a trial's first step; 0 when unknown."""
    model_bytes: float = 0.0
    """Size of the model on disk; 0 when unknown."""
    splits_batches: bool = False
    """Whether a trial that ran out of memory may be retried with a smaller micro-batch."""
    kept: Kept = Kept()


def prepare(study: StudyData, known: Mapping[str, Any], executor: Executor, watch: Watcher) -> Prepared:
    """Prepare the data, then build and check a trial as it will be trained.

    Raises InputError for data that cannot be prepared and StudyFileError for what only a built trial reveals.
    """
    seconds = executor.wait_ready()
    watch.on_note(f"warm process ready in {seconds:.1f} s")
    console = study.place.inspect_log
    prepared = executor.job("prepare", console=console)
    if "error" in prepared:
        raise InputError(f"task: the data cannot be prepared: {prepared['error']} (log: {console})")
    for note in prepared["notes"]:
        watch.on_note(note)
    write_whole(study.place.data_json, json.dumps(prepared["about"]))
    splits = prepared["about"]["rows"]
    if study.confirm is not None and study.confirm.test == "once" and "test" not in splits:
        raise StudyFileError([Problem("confirm.test", f"once needs a test split; the data has {', '.join(splits)}")])
    rows = ", ".join(f"{name} {count}" for name, count in splits.items())
    streamed = "; the training rows are streamed" if prepared["about"].get("streamed") else ""
    watch.on_note(f"data prepared: {rows} rows{streamed}")
    inspected, kept = _inspect(study, known, executor, console, prepared)
    for fact in inspected.facts:
        watch.on_note(fact)
    for note in inspected.notes:
        watch.on_note(f"{note} (log: {console})")
    return Prepared(
        data=Path(prepared["folder"]),
        peak_memory_mb=inspected.peak_memory_mb,
        model_bytes=inspected.model_mb * 1e6,
        splits_batches=not inspected.micro_batch_matters,
        kept=kept,
    )


def _inspect(
    study: StudyData, known: Mapping[str, Any], executor: Executor, console: Path, prepared: Mapping[str, Any]
) -> tuple[Inspected, Kept]:
    """Train a trial's first step in a child of the warm process, unless nothing was wrong with it the last time and nothing
    it depends on has changed since. Raises StudyFileError for the problems it showed.
    """
    values, since = _lowest(study, known), time.time_ns()
    plain = {key: value for key, value in plain_study(study).items() if key not in UNSEEN}
    devices = [socket.gethostname(), os.environ.get("CUDA_VISIBLE_DEVICES"), len(gpus_here())]
    question = (str(study.home), plain, values, prepared["folder"], devices)
    kept = Kept(() if study.place.task.exists() else question)  # a task by value is in no file
    answer = kept.recall("inspection")
    if answer is None:
        answer = _asked(study, values, executor, console)
        files = answer.pop("files")
        if not answer["problems"] and not answer["notes"]:
            kept = replace(kept, files=files | _stamps(answer["model_folder"]), since=since)
            kept.keep("inspection", answer)
    executor.preload(answer.pop("imported"))
    inspected = Inspected(**answer)
    if inspected.problems:
        raise StudyFileError(
            Problem(where, f"{message} (log: {console})" if where == "task" else message)
            for where, message in inspected.problems
        )
    return inspected, kept


def _asked(study: StudyData, values: Mapping[str, Any], executor: Executor, console: Path) -> dict[str, Any]:
    study.place.scratch.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=study.place.scratch) as temporary:
        path = Path(temporary) / SPEC
        path.write_text(TrialSpec(number=0, hyperparameters=values, directory=temporary).to_json())
        answer = executor.job("inspect", console=console, spec=str(path))
    if "error" in answer:
        raise StudyFailed(f"the task cannot be trained: {answer['error']} (log: {console})")
    return answer


def _stamps(folder: str) -> dict[str, list[int]]:
    """Return the files of a model's folder → modification time (ns) and size; empty for a model that is not a local folder."""
    files = [file for file in Path(folder).iterdir() if file.is_file()] if folder and Path(folder).is_dir() else []
    return {str(file.resolve()): [(stat := file.stat()).st_mtime_ns, stat.st_size] for file in files}


def _lowest(study: StudyData, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration that a trial is built with: every parameter's lowest or first value."""
    values = derive(study.space, draw(study.space, lambda dimension: dimension.parameter.at(0)), known)
    return Configurations(study, known).with_consumer(values)
