"""What comes before a study's first trial: a warm process, prepared data, and what only building a trial can tell.

Records nothing; what does not fit is refused here, before anything is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sweepkit.backends.local.executor import Executor
from sweepkit.report.watch import Watcher
from sweepkit.study.errors import InputError, Problem, StudyFileError
from sweepkit.study.formulas import derive
from sweepkit.study.space import Choice, draw
from sweepkit.study.study import StudyData
from sweepkit.trial.trial import TrialSpec


def executor_of(study: StudyData) -> Executor:
    """Return the study's executor, still without slots; its warm process starts when it is entered."""
    hours = study.budget.trial_hours
    log = study.place.folder / "warm.log"
    return Executor(study, [], log=log, deadline_seconds=hours * 3600 if hours else None)


def second_check(study: StudyData, known: Mapping[str, Any], executor: Executor, watch: Watcher) -> dict[str, Any]:
    """Prepare the data, build what a trial builds, and refuse, before anything is recorded, what only that can tell.

    Return what ``inspect`` found, and ``data``, the folder of the prepared data. Raises InputError, StudyFileError.
    """
    seconds = executor.wait_ready()
    watch.on_note(f"warm process ready in {seconds:.1f} s")
    console = study.place.folder / "inspect.log"
    prepared = executor.job("prepare", console=console)
    if "error" in prepared:
        raise InputError(f"task: the data cannot be prepared: {prepared['error']} (log: {console})")
    splits = prepared["about"]["rows"]
    if study.confirm is not None and study.confirm.test == "once" and "test" not in splits:
        raise StudyFileError([Problem("confirm.test", f"once needs a test split; the data has {', '.join(splits)}")])
    rows = ", ".join(f"{name} {count}" for name, count in splits.items())
    watch.on_note(f"data prepared: {rows} rows")
    study.place.scratch.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=study.place.scratch) as temporary:
        spec = TrialSpec(number=0, hyperparameters=_first(study, known), directory=temporary)
        path = Path(temporary) / "spec.json"
        path.write_text(spec.to_json())
        inspected = executor.job("inspect", console=console, spec=str(path))
    executor.preload(inspected.pop("imported", []))
    if inspected["problems"]:
        raise StudyFileError(
            Problem(where, f"{message} (log: {console})" if where == "task" else message)
            for where, message in inspected["problems"]
        )
    for note in inspected["notes"]:
        watch.on_note(f"{note} (log: {console})")
    return {**inspected, "data": prepared["folder"]}


def _first(study: StudyData, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration to try the task with: the lowest or first value of every parameter."""
    values = draw(study.space, lambda d: d.parameter.labels[0] if isinstance(d.parameter, Choice) else d.parameter.low)
    values = derive(study.space, values, known)
    return {name: value for name, value in values.items() if name in known}
