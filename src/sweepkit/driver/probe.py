"""Looks ahead: measures a few configurations of a study, and its most demanding one, and forecasts what all of it takes.

Nothing is recorded; prepared data stays for the run. What a run would refuse before its first trial is refused here too.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from sweepkit.backends.local.executor import Executor
from sweepkit.backends.slots import Machine, plan
from sweepkit.check import Checked
from sweepkit.driver.forecast import Corner, Forecast, Ground, forecast
from sweepkit.driver.prepare import executor_of, prepare
from sweepkit.driver.rehearsal import trials_of
from sweepkit.report.watch import Quiet, Watcher
from sweepkit.search.storage import several_drivers
from sweepkit.study import words
from sweepkit.study.configurations import Configuration, Configurations
from sweepkit.study.errors import StudyFailed
from sweepkit.study.locks import StudyLock
from sweepkit.study.parameters import Choice, Float, Int, Scalar
from sweepkit.study.paths import CONSOLE, MEASURED
from sweepkit.study.space import Dimension, dimensions
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Finished
from sweepkit.trial.measured import Measured
from sweepkit.trial.trial import Ending, TrialSpec

FEWEST = 6
"""So many configurations are measured at least, spread evenly over the space."""
CANDIDATES = 12
"""So many configurations are tried at most in the search for the most demanding one."""
NOISE = 1.01
"""The peaks of equal configurations differ by so much."""
TRIES = 500
"""So often a configuration is drawn again that breaks a constraint."""
DIVISORS = (2, 4, 8)
"""How the micro-batch is divided where the most demanding configuration runs out of memory."""


def probe(checked: Checked, watch: Watcher | None = None) -> Forecast:
    """Measure a checked study and return the forecast.

    Raises what a run would raise before its first trial, and StudyFailed where no configuration could be measured.
    """
    study, known = checked.study, checked.known
    watch, began = watch or Quiet(), time.monotonic()
    with StudyLock(study.place, shared=several_drivers(study)), executor_of(study) as executor:
        watch.on_note("importing torch, transformers and the task once …")
        prepared = prepare(study, known, executor, watch)
        started = time.monotonic() - began
        slots = plan(study.backend, Machine.here(), trial_memory_mb=prepared.peak_memory_mb)
        study.place.scratch.mkdir(exist_ok=True)
        with TemporaryDirectory(dir=study.place.scratch) as scratch:
            probing = _Probing(study, executor, Path(scratch))
            assert prepared.data is not None
            probing.data.add(prepared.data)
            executor.free.extend(slots[:1])
            corner = _corner(study, known, probing)
            watch.on_note(f"most demanding: {words.settings(corner.hyperparameters) or 'all alike'}")
            memory, here = max(corner.peak_memory_mb, prepared.peak_memory_mb), Machine.here()
            slots = plan(study.backend, here, trial_memory_mb=memory)
            executor.free[:] = slots
            shared = 0.0 if here.gpus else psutil.Process(executor.warm_pid).memory_info().rss / 1e6
            chosen = spread(study, known, _count(study, len(slots)))
            numbers = f"{words.plural(len(chosen), 'configuration')}, {len(slots)} at a time"
            watch.on_note(f"measuring {numbers}: a few steps and an evaluation each …")
            measured = probing.measure([configuration.hyperparameters for configuration in chosen])
    corner = replace(corner, peak_memory_mb=max(corner.peak_memory_mb, *(one.peak_memory_mb for one in measured)))
    ground = Ground(
        slots=len(slots),
        start_seconds=started,
        data_bytes=_data_bytes(study, known, probing.data),
        free_memory_mb=math.inf if here.gpus else here.memory_mb + shared,
        shared_memory_mb=shared,
    )
    return forecast(study, corner, measured, ground)


def _data_bytes(study: StudyData, known: Mapping[str, Any], prepared: set[Path]) -> float:
    """Return what the prepared data of all trials takes: those that differ in an option of the task have their own."""
    configurations, dice = Configurations(study, known), random.Random(study.sampler.seed)
    asked = set[str]()
    for _ in range(trials_of(study) or FEWEST):
        made = configurations.answered(lambda d: d.parameter.random(dice))
        asked |= {json.dumps(_options(made.hyperparameters), sort_keys=True)} if made else set()
    size = sum(file.stat().st_size for folder in prepared for file in folder.rglob("*") if file.is_file())
    return size / len(prepared) * max(len(prepared), len(asked))


def _options(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    prefix = "task."
    return {k.removeprefix(prefix): v for k, v in hyperparameters.items() if k.startswith(prefix)}


def _count(study: StudyData, slots: int) -> int:
    """Enough to be spread out, and every slot busy as in the run, for its neighbours make a trial slower."""
    if not study.space:
        return slots
    rounds = math.ceil(FEWEST / slots)
    return min(rounds * slots, max(slots, trials_of(study) or FEWEST))


class _Probing:
    """Measures configurations on an executor's slots, in folders that are thrown away."""

    def __init__(self, study: StudyData, executor: Executor, scratch: Path) -> None:
        self._study = study
        self._executor = executor
        self._scratch = scratch
        self._number = 0
        self._console = study.place.inspect_log
        self.data = set[Path]()
        """Folders of prepared data."""

    def _prepared(self, hyperparameters: Mapping[str, Any]) -> None:
        """Prepare a configuration's data first, as one trial of many does: it is no part of what a trial takes."""
        options = _options(hyperparameters)
        if options:
            done = self._executor.job("prepare", console=self._console, options=options)
            self.data |= {Path(done["folder"])} if "folder" in done else set()

    def start(self, hyperparameters: Mapping[str, Any], *, worst: bool, divisor: int = 1) -> Path:
        """Start to measure one and return its folder."""
        folder = self._scratch / f"{self._number:04d}"
        spec = TrialSpec(
            number=self._number,
            hyperparameters=hyperparameters,
            directory=str(folder),
            micro_batch_divisor=divisor,
        )
        self._number += 1
        self._executor.start(spec, job="measure", worst=worst)
        return folder

    def ended(self) -> Finished:
        """Wait for the next one to end."""
        while True:
            for event in self._executor.poll(1.0):
                if isinstance(event, Finished):
                    return event

    def needs(self, hyperparameters: Mapping[str, Any], divisor: int = 1) -> Finished:
        """Return how the first two steps of a configuration ended. Raises StudyFailed where that says nothing about memory."""
        self._prepared(hyperparameters)
        folder = self.start(hyperparameters, worst=True, divisor=divisor)
        end = self.ended()
        if end.ending not in (Ending.complete, Ending.pruned, Ending.infeasible, Ending.diverged):
            raise _failed(end, hyperparameters, folder)
        return end

    def measure(self, configurations: Sequence[Mapping[str, Any]]) -> list[Measured]:
        """Return what was measured of those that could be, as many at a time as there are slots."""
        for hyperparameters in configurations:
            self._prepared(hyperparameters)
        waiting, found = list(configurations), list[Measured]()
        begun = dict[int, tuple[Path, float]]()
        last: StudyFailed | None = None
        while waiting or self._executor.running:
            while waiting and self._executor.free:
                number, now = self._number, time.monotonic()
                begun[number] = (self.start(waiting.pop(0), worst=False), now)
            end = self.ended()
            folder, since = begun[end.trial]
            if (folder / MEASURED).exists():
                one = Measured(**json.loads((folder / MEASURED).read_text()))
                overhead = time.monotonic() - since - one.busy_seconds
                found.append(replace(one, overhead_seconds=overhead, peak_memory_mb=end.peak_memory_mb))
            else:
                last = _failed(end, {}, folder)
        if not found:
            raise last or StudyFailed("no configuration could be measured")
        return found


def _failed(end: Finished, hyperparameters: Mapping[str, Any], folder: Path) -> StudyFailed:
    console = folder / CONSOLE
    tail = console.read_text(errors="replace").strip().splitlines()[-1:] if console.exists() else []
    what = f" with {words.settings(hyperparameters)}" if hyperparameters else ""
    return StudyFailed(f"the first steps{what} ended as {end.ending}: {end.cause or ' '.join(tail)}")


def spread(study: StudyData, known: Mapping[str, Any], count: int) -> list[Configuration]:
    """Return configurations spread evenly over each parameter's domain, the same for the same study."""
    configurations, axes, dice = (
        Configurations(study, known),
        dimensions(study.space),
        random.Random(study.sampler.seed),
    )
    found: list[Configuration] = []
    for _ in range(TRIES):
        columns = [[(n + 0.5) / count for n in dice.sample(range(count), count)] for _ in axes]
        for row in zip(*columns, strict=True):
            answers = {key: axes[key].parameter.at(share) for key, share in zip(axes, row, strict=True)}
            made = configurations.answered(lambda d, answers=answers: answers[d.key])  # type: ignore[misc]
            found += [made] if made else []
        if len(found) >= count:
            return found[:count]
    if not found:
        raise StudyFailed(f"none of {TRIES * count} configurations kept the study's constraints")
    return found


def _takes_memory(dimension: Dimension) -> bool:
    """Whether more of it may mean more memory: batches, inputs and models, not rates and lengths of training."""
    name, parameter = dimension.name, dimension.parameter
    sized = name.startswith(("model.", "peft.", "task.")) or name.endswith("_batch_size")
    return sized and (isinstance(parameter, Int) or (isinstance(parameter, Choice) and _numeric(parameter)))


def _numeric(parameter: Choice) -> bool:
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in parameter.labels)


def _ends(dimension: Dimension) -> list[Scalar]:
    """The values worth trying, the one that should need most memory first."""
    parameter = dimension.parameter
    if isinstance(parameter, Choice) and not _numeric(parameter):
        return parameter.labels
    both = parameter.labels if isinstance(parameter, Choice) else [parameter.at(0), parameter.at(1)]
    values = sorted(both, key=lambda value: float(value or 0))
    if not _takes_memory(dimension):
        return [parameter.at(0.5)] if isinstance(parameter, Float) else values[:1]
    # A batch is monotone; of what a task or model makes of its numbers (patches, windows) nothing is known.
    return [values[-1]] if dimension.name.endswith("_batch_size") else [values[-1], values[0]]


def corners(
    study: StudyData, known: Mapping[str, Any]
) -> tuple[dict[str, Scalar], Callable[..., Configuration | None]]:
    """Return the answers that should need most memory, and what makes a configuration of answers.

    Where the upper ends together break a constraint, the largest ends that keep them are taken.
    """
    configurations, axes = Configurations(study, known), dimensions(study.space)

    def make(answers: Mapping[str, Scalar]) -> Configuration | None:
        return configurations.answered(lambda d: answers[d.key])

    top = {key: _ends(dimension)[0] for key, dimension in axes.items()}
    if make(top) is not None:
        return top, make

    dice, best, most = random.Random(0), None, -math.inf
    for _ in range(TRIES):
        answers = {key: d.parameter.at(dice.choice((0.0, dice.random(), 1.0))) for key, d in axes.items()}
        size = sum(math.log1p(float(answers[k] or 0)) for k, d in axes.items() if _takes_memory(d))
        if size > most and make(answers) is not None:
            best, most = answers, size
    if best is None:
        raise StudyFailed(f"none of {TRIES} configurations kept the study's constraints")
    return best, make


def _corner(study: StudyData, known: Mapping[str, Any], probing: _Probing) -> Corner:
    """Look for the configuration that needs most memory: from the upper ends, one parameter after the other."""
    answers, make = corners(study, known)
    found = make(answers)
    assert found is not None
    end, tried = probing.needs(found.hyperparameters), 1
    for key, dimension in dimensions(study.space).items():
        for value in _ends(dimension):
            other = make({**answers, key: value})
            same = other is None or other.key == found.key
            if other is None or same or tried >= CANDIDATES or end.ending == Ending.infeasible:
                continue
            tried += 1
            its = probing.needs(other.hyperparameters)
            if its.ending == Ending.infeasible or its.peak_memory_mb > NOISE * end.peak_memory_mb:
                answers, found, end = {**answers, key: value}, other, its
    matter = {d.name for d in dimensions(study.space).values() if _takes_memory(d) or len(_ends(d)) > 1}
    shown = {name: value for name, value in found.hyperparameters.items() if name in matter}
    corner = Corner(hyperparameters=shown, peak_memory_mb=end.peak_memory_mb)
    if end.ending != Ending.infeasible:
        return corner
    batch = int(found.hyperparameters.get("per_device_train_batch_size", known["per_device_train_batch_size"]))
    for divisor in DIVISORS:
        if batch % divisor == 0 and probing.needs(found.hyperparameters, divisor).ending != Ending.infeasible:
            return replace(corner, out_of_memory=end.cause, fits=batch // divisor)
    return replace(corner, out_of_memory=end.cause)
