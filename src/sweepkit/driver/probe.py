"""Forecasts what a study takes: trains the first steps of its largest configuration and of a few others.

Nothing is recorded; only the prepared data stays for the run. What a run would refuse before its first trial is refused
here too.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from sweepkit.backends.local.executor import Executor
from sweepkit.backends.slots import Machine, Need, explain, plan, roomiest, shares_gpus
from sweepkit.check import Checked
from sweepkit.driver.forecast import Forecast, Host, Largest, forecast, trials_of
from sweepkit.driver.prepare import Prepared, prepare
from sweepkit.report.watch import Watcher
from sweepkit.study import words
from sweepkit.study.configurations import Configurations
from sweepkit.study.errors import StudyFailed
from sweepkit.study.files import last_line
from sweepkit.study.locks import StudyLock
from sweepkit.study.parameters import Choice, Float, Int, Scalar
from sweepkit.study.paths import CONSOLE, MEASURED
from sweepkit.study.space import Dimension, dimensions
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Finished
from sweepkit.trial.first_steps import Measured
from sweepkit.trial.trial import Ending, TrialSpec

FEWEST = 6
"""Configurations that are measured at least, spread evenly over the space."""
TRIES = 500
"""Configurations drawn at most to find one that meets the constraints."""
DIVISORS = (2, 4, 8)
"""Fractions of the micro-batch that are tried where the largest configuration runs out of memory."""


def probe(checked: Checked, watch: Watcher | None = None) -> Forecast:
    """Measure a checked study and return the forecast.

    Raises what a run would raise before its first trial, and StudyFailed where no configuration could be measured.
    """
    study, known = checked.study, checked.known
    watch, began = watch or Watcher(), time.monotonic()
    with StudyLock(study.place, shared=study.several_drivers), Executor(study) as executor:
        watch.on_note("importing torch, transformers and the task once …")
        prepared = prepare(study, known, executor, watch)
        started = time.monotonic() - began
        machine = Machine.here()
        with TemporaryDirectory(dir=study.place.scratch) as scratch:
            bench = _Bench(study, executor, Path(scratch))
            executor.free.append(roomiest(plan(study.resources, machine, Need(prepared.peak_memory_mb)), machine))
            largest = bench.measure_largest(known)
            watch.on_note(f"largest configuration: {words.settings(largest.hyperparameters) or 'all are alike'}")
            need = _need(largest, prepared)
            executor.free[:] = slots = plan(study.resources, machine, need)
            shared = 0.0 if slots[0].devices else psutil.Process(executor.warm_pid).memory_info().rss / 1e6
            chosen = spread(study, known, _count(study, len(slots)))
            count = f"{words.plural(len(chosen), 'configuration')}, {len(slots)} at a time"
            watch.on_note(f"measuring {count}: a few steps and an evaluation each …")
            measured = bench.measure(chosen)
            if bench.too_large and not largest.out_of_memory:
                largest = bench.judge(bench.too_large[0], known, bench.too_large[1])
    assert prepared.data is not None
    peak = max(largest.peak_memory_mb, *(one.peak_memory_mb for one in measured))
    host = Host(
        slots=len(slots),
        start_seconds=started,
        data_bytes=_data_bytes(study, known, {prepared.data, *bench.data}),
        free_memory_mb=math.inf if slots[0].devices else machine.memory_mb + shared,
        shared_memory_mb=shared,
        sharing=explain(study.resources, machine, need),
    )
    return forecast(study, replace(largest, peak_memory_mb=peak), measured, host)


def look(
    study: StudyData, known: Mapping[str, Any], executor: Executor, prepared: Prepared, watch: Watcher | None = None
) -> Need:
    """Return what a trial needs. Where trials may share GPUs, train the first steps of the largest configuration for it,
    unless that was done before and nothing has changed that it depends on.
    """
    machine, need = Machine.here(), Need(prepared.peak_memory_mb)
    if not study.backend.kind.here or not shares_gpus(study.resources, machine):
        return need
    if any(goal.metric == "train_runtime" for goal in study.objective.goals):
        return replace(need, alone="train_runtime is a goal, and trials that share a GPU slow each other down")
    what = f"largest on {sorted(gpu.total_mb for gpu in machine.known.values())}"
    if seen := prepared.kept.recall(what):
        return Need(**seen)
    if watch is not None:
        watch.on_note("measuring how much of a GPU the largest configuration takes …")
    study.place.scratch.mkdir(exist_ok=True)
    executor.free.append(roomiest(plan(study.resources, machine, need), machine))
    try:
        with TemporaryDirectory(dir=study.place.scratch) as scratch:
            need = _need(_Bench(study, executor, Path(scratch)).measure_largest(known), prepared)
        if not need.alone and need.busy is not None:
            prepared.kept.keep(what, asdict(need))
        return need
    except StudyFailed as error:
        return replace(need, alone=f"what a trial takes is not known: {error}")
    finally:
        executor.free.clear()


def _need(largest: Largest, prepared: Prepared) -> Need:
    memory = max(largest.peak_memory_mb, prepared.peak_memory_mb)
    return Need(memory, largest.busy, "the largest configuration runs out of memory" if largest.out_of_memory else "")


def largest_of(study: StudyData, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hyperparameters with the upper end of every size, and of the rest the lower end (a float: the middle).

    Where these break a constraint: the largest of TRIES random configurations. Raises StudyFailed where none meets all.
    """
    axes, make = dimensions(study.space), _maker(study, known)
    made = make({key: _upper_end(dimension) for key, dimension in axes.items()})
    if made is not None:
        return made
    dice, best, most = random.Random(0), None, -math.inf
    for _ in range(TRIES):
        labels = {key: d.parameter.at(dice.choice((0.0, dice.random(), 1.0))) for key, d in axes.items()}
        size = sum(math.log1p(float(labels[key] or 0)) for key, d in axes.items() if _takes_memory(d))
        if size > most and (made := make(labels)) is not None:
            best, most = made, size
    if best is None:
        raise StudyFailed(f"none of {TRIES} random configurations meets the study's constraints")
    return best


def spread(study: StudyData, known: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """Return hyperparameters spread evenly over each parameter's domain, the same for the same study."""
    axes, make, dice = dimensions(study.space), _maker(study, known), random.Random(study.sampler.seed)
    chosen: list[dict[str, Any]] = []
    for _ in range(TRIES):
        columns = [[(n + 0.5) / count for n in dice.sample(range(count), count)] for _ in axes]
        for shares in zip(*columns, strict=True) if axes else [()] * count:
            labels = {key: axes[key].parameter.at(share) for key, share in zip(axes, shares, strict=True)}
            if (made := make(labels)) is not None:
                chosen.append(made)
        if len(chosen) >= count:
            return chosen[:count]
    if not chosen:
        raise StudyFailed(f"none of {TRIES * count} configurations meets the study's constraints")
    return chosen


def _maker(study: StudyData, known: Mapping[str, Any]) -> Callable[[Mapping[str, Scalar]], dict[str, Any] | None]:
    """Return a function from labels (by dimension) to hyperparameters; None where these break a constraint."""
    configurations = Configurations(study, known)

    def make(labels: Mapping[str, Scalar]) -> dict[str, Any] | None:
        made = configurations.assemble(lambda dimension: labels[dimension.key])
        return dict(made.hyperparameters) if made else None

    return make


def _takes_memory(dimension: Dimension) -> bool:
    """Whether it is a number of a batch, an input or a model; lengths and rates of training take no memory."""
    name, parameter = dimension.name, dimension.parameter
    sized = name.startswith(("model.", "peft.", "task.")) or name.endswith("_batch_size")
    return sized and (isinstance(parameter, Int) or (isinstance(parameter, Choice) and _is_numeric(parameter)))


def _is_numeric(parameter: Choice) -> bool:
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in parameter.labels)


def _upper_end(dimension: Dimension) -> Scalar:
    parameter = dimension.parameter
    if isinstance(parameter, Choice):
        order = sorted(parameter.labels, key=lambda label: float(label or 0)) if _is_numeric(parameter) else None
        return order[-1 if _takes_memory(dimension) else 0] if order else parameter.labels[0]
    return parameter.at(0.5 if isinstance(parameter, Float) else float(_takes_memory(dimension)))


def _count(study: StudyData, slots: int) -> int:
    """Return how many configurations to measure: every slot is busy as in the run, where neighbours slow a trial down."""
    if not study.space:
        return slots
    return min(math.ceil(FEWEST / slots) * slots, max(slots, trials_of(study) or FEWEST))


def _data_bytes(study: StudyData, known: Mapping[str, Any], prepared: set[Path]) -> float:
    """Return the bytes of all trials' prepared data: each combination of task options has a data set of its own."""
    drawn = spread(study, known, trials_of(study) or FEWEST) if study.space else []
    options = {json.dumps(study.by_consumer(values).task, sort_keys=True) for values in drawn}
    size = sum(file.stat().st_size for folder in prepared for file in folder.rglob("*") if file.is_file())
    return size / len(prepared) * max(len(prepared), len(options))


class _Bench:
    """Trains the first steps of configurations on an executor's slots, in folders that are thrown away."""

    def __init__(self, study: StudyData, executor: Executor, scratch: Path) -> None:
        self._study = study
        self._executor = executor
        self._scratch = scratch
        self._number = 0
        self._ends: list[Finished] = []
        self.data = set[Path]()
        """Folders of the data prepared for task options."""
        self.too_large: tuple[Mapping[str, Any], Finished] | None = None

    def measure_largest(self, known: Mapping[str, Any]) -> Largest:
        """Train two steps of the largest configuration."""
        hyperparameters = largest_of(self._study, known)
        return self.judge(hyperparameters, known, self._first_steps(hyperparameters, 1))

    def judge(self, hyperparameters: Mapping[str, Any], known: Mapping[str, Any], end: Finished) -> Largest:
        """Return the configuration as the largest; where it ran out of memory, look for a micro-batch that fits."""
        sizes = {dimension.name for dimension in dimensions(self._study.space).values() if _takes_memory(dimension)}
        shown = {name: value for name, value in hyperparameters.items() if name in sizes}
        largest = Largest(hyperparameters=shown, peak_memory_mb=end.peak_memory_mb, busy=self._busy(end.trial))
        if end.ending != Ending.infeasible:
            return largest
        batch = int(hyperparameters.get("per_device_train_batch_size", known["per_device_train_batch_size"]))
        for divisor in (divisor for divisor in DIVISORS if batch % divisor == 0):
            if self._first_steps(hyperparameters, divisor).ending != Ending.infeasible:
                return replace(largest, out_of_memory=end.cause, fits=batch // divisor)
        return replace(largest, out_of_memory=end.cause)

    def _busy(self, number: int) -> float | None:
        file = self._folder(number) / MEASURED
        return Measured(**json.loads(file.read_text())).busy if file.exists() else None

    def measure(self, configurations: Sequence[Mapping[str, Any]]) -> list[Measured]:
        """Measure configurations, as many at a time as there are slots. Raises StudyFailed where none could be.

        The first of them that runs out of memory, in their order, is left in ``too_large``.
        """
        for hyperparameters in configurations:
            self._prepare(hyperparameters)
        waiting, measured = list(configurations), list[Measured]()
        began = dict[int, tuple[float, Mapping[str, Any]]]()
        too_large = dict[int, tuple[Mapping[str, Any], Finished]]()
        failure = StudyFailed("no configuration could be measured")
        while waiting or self._executor.running or self._ends:
            while waiting and self._executor.free:
                hyperparameters, now = waiting.pop(0), time.monotonic()
                began[self._start(hyperparameters, worst=False)] = (now, hyperparameters)
            end = self._wait()
            since, hyperparameters = began[end.trial]
            file = self._folder(end.trial) / MEASURED
            if file.exists():
                one = Measured(**json.loads(file.read_text()))
                overhead = time.monotonic() - since - one.busy_seconds
                measured.append(replace(one, overhead_seconds=overhead, peak_memory_mb=end.peak_memory_mb))
            else:
                failure = self._failure(end)
            if end.ending == Ending.infeasible:
                too_large[end.trial] = (hyperparameters, end)
        if too_large:
            self.too_large = too_large[min(too_large)]
        if not measured:
            raise failure
        return measured

    def _first_steps(self, hyperparameters: Mapping[str, Any], divisor: int) -> Finished:
        """Train two steps on the longest rows. Raises StudyFailed for an end that tells nothing about memory."""
        self._prepare(hyperparameters)
        self._start(hyperparameters, worst=True, divisor=divisor)
        end = self._wait()
        if end.ending not in (Ending.complete, Ending.pruned, Ending.infeasible, Ending.diverged):
            raise self._failure(end, hyperparameters)
        return end

    def _prepare(self, hyperparameters: Mapping[str, Any]) -> None:
        """Prepare a configuration's data beforehand, as the first of many trials does: no trial's time includes it."""
        if options := self._study.by_consumer(hyperparameters).task:
            console = self._study.place.inspect_log
            done = self._executor.job("prepare", console=console, options=options)
            self.data |= {Path(done["folder"])} if "folder" in done else set()

    def _start(self, hyperparameters: Mapping[str, Any], *, worst: bool, divisor: int = 1) -> int:
        """Start measuring a configuration; return its number."""
        number, self._number = self._number, self._number + 1
        folder = str(self._folder(number))
        spec = TrialSpec(number=number, hyperparameters=hyperparameters, directory=folder, micro_batch_divisor=divisor)
        self._executor.start(spec, job="measure", worst=worst)
        return number

    def _wait(self) -> Finished:
        """Return the next end."""
        while not self._ends:
            self._ends += [event for event in self._executor.poll(1.0) if isinstance(event, Finished)]
        return self._ends.pop(0)

    def _folder(self, number: int) -> Path:
        return self._scratch / f"{number:04d}"

    def _failure(self, end: Finished, hyperparameters: Mapping[str, Any] | None = None) -> StudyFailed:
        console = self._folder(end.trial) / CONSOLE
        what = f" with {words.settings(hyperparameters)}" if hyperparameters else ""
        return StudyFailed(f"the first steps{what} ended as {end.ending}: {end.cause or last_line(console)}")
