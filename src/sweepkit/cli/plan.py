"""What a checked study will do, in words, for ``sweep check``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from shlex import quote
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sweepkit.backends import slots
from sweepkit.backends.checkpoints import RESUMABLE_PER_MODEL
from sweepkit.check.fields.models import locate
from sweepkit.driver.forecast import Forecast
from sweepkit.report import terminal
from sweepkit.study import words
from sweepkit.study.errors import InputError
from sweepkit.study.parameters import Choice, Expression, Float, Int
from sweepkit.study.secrets import hide, scrub_url
from sweepkit.study.study import StudyData
from sweepkit.trackers import tracker_of


def plan(study: StudyData, argument: str, forecast: Forecast | None = None) -> RenderableType:
    """Return what a study searches, fixes and may spend, where its results go, and the forecast if there is one."""
    table = Table.grid(padding=(0, 2, 0, 0))
    if study.question:
        table.add_row(Text("asks", style="dim"), Text(study.question))
    task = study.task
    table.add_row(Text("task", style="dim"), Text(f"{task.type or task.path} {_options(hide(task.options))}".strip()))
    _rows(table, "searches", _space(study.space))
    _rows(table, "fixed", [(name, words.setting(value, width=60)) for name, value in hide(study.training).items()])
    _rows(table, "baseline", [(name, words.setting(value)) for name, value in (study.baseline or {}).items()])
    if study.constraints:
        _rows(table, "constraints", [(text, "") for text in study.constraints])
    if study.enqueue:
        table.add_row(Text("enqueued", style="dim"), Text(words.plural(len(study.enqueue), "configuration")))
    table.add_row(Text("budget", style="dim"), Text(budget(study)))
    if forecast is None:
        table.add_row(Text("disk", style="dim"), Text(disk(study)))
    if shared := gpus(study):
        table.add_row(Text("GPUs", style="dim"), Text(shared))
    tracker = tracker_of(study).name
    record = [f"{tracker} {scrub_url(study.tracking.uri)}"] if tracker else []
    table.add_row(Text("results", style="dim"), Text(", ".join([terminal.short_path(study.place.folder), *record])))
    objections = forecast.objections(study) if forecast else []
    verdict = ("not ready to run", "red") if objections else ("ready to run", "green")
    typed = quote(argument)
    command = f"sweep check --probe {typed}, once that is fixed" if objections else f"sweep run {typed}"
    step = Text.assemble(("next  ", "dim"), (command, "cyan"))
    head = Text.assemble(terminal.heading(study), "  ", verdict)
    return Group(head, Text(), table, Text(), *([outlook(study, forecast), Text()] if forecast else []), step)


def budget(study: StudyData) -> str:
    """Return the budget in words, for example ``40 trials, 6 hours``."""
    spent = study.budget
    parts = [
        words.plural(spent.trials, "trial") if spent.trials is not None else "",
        f"{spent.hours:g} hours" if spent.hours is not None else "",
        f"{spent.gpu_hours:g} GPU-hours" if spent.gpu_hours is not None else "",
        f"{spent.trial_hours:g} hours per trial" if spent.trial_hours is not None else "",
        f"until {spent.target:g}" if spent.target is not None else "",
        f"{spent.disk_gb:g} GB of checkpoints" if spent.disk_gb is not None else "",
    ]
    return ", ".join(part for part in parts if part) or "no limit: runs until stopped"


def gpus(study: StudyData) -> str:
    """Return how trials are shared out among this machine's GPUs; empty where there are none, or trials run elsewhere."""
    machine = slots.Machine.here()
    if not study.backend.kind.here or not machine.gpus:
        return ""
    try:
        text = slots.describe(slots.plan(study.resources, machine))
    except InputError as error:
        return str(error)
    if slots.shares_gpus(study.resources, machine):
        return f"{text}; how many fit on a GPU is measured before trial 0"
    return "; ".join(filter(None, [text, slots.explain(study.resources, machine, slots.Need())]))


def disk(study: StudyData) -> str:
    """Return the disk that checkpoints will take, from the size of the model's weights; LoRA keeps adapters only."""
    model = study.task.options.get("model")
    folder = locate(model, study.home)[0] if isinstance(model, str) else None
    weights = max((_bytes(folder, pattern) for pattern in ("*.safetensors", "*.bin")), default=0) if folder else 0
    kept = min(study.checkpoints.keep, study.budget.trials or study.checkpoints.keep)
    if not weights:
        return f"{words.plural(kept, 'best model')} kept; their size is known after the first trial starts"
    resumable = RESUMABLE_PER_MODEL if study.checkpoints.every == "evaluation" else 0.0
    # A checkpoint is complete before the one it replaces is removed: for a moment there are two of each.
    running = 2 * (1 + resumable) * weights
    adapters = any(name.startswith("peft.") for name in (*study.space, *study.training))
    most = "at most " if adapters else ""
    text = f"{most}{words.size(kept * weights)} for {words.plural(kept, 'best model')}"
    paused = f", {words.size((1 + resumable) * weights)} for each paused one" if study.pruner.pauses else ""
    return f"{text}, and {most}{words.size(running)} for each running trial{paused}"


def outlook(study: StudyData, forecast: Forecast) -> RenderableType:
    """Return the forecast, what was measured for it, and the objections."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for title, text in _forecast(study, forecast):
        table.add_row(Text(title, style="dim"), Text(text))
    steps = [one.measured_steps for one in forecast.measured]
    range_of = f"{min(steps)}" if min(steps) == max(steps) else f"{min(steps)} to {max(steps)}"
    measured = (
        f"measured on {words.plural(len(steps), 'configuration')} spread over the space, {forecast.host.slots} at a time: "
        f"{range_of} steps after warm-up and an evaluation each"
    )
    objections = [Text(f"! {text}", style="red") for text in forecast.objections(study)]
    return Group(Text("forecast", style="bold"), Text(), table, Text(), Text(measured, style="dim"), *objections)


def _forecast(study: StudyData, forecast: Forecast) -> Iterator[tuple[str, str]]:
    yield from _memory(forecast)
    each = [one.seconds for one in forecast.measured]
    spread = f" ({words.span(min(each))} to {words.span(max(each))})" if len(each) > 1 else ""
    yield "a trial", f"{words.span(forecast.trial_seconds)} if trained to its end{spread}"
    yield from _duration(study, forecast)
    parts = [
        f"{words.size(forecast.kept_bytes)} for {words.plural(forecast.kept_models, 'best model')}",
        f"{words.size(forecast.host.data_bytes)} for prepared data",
        f"{words.size(forecast.record_bytes)} for logs and report",
    ]
    yield "disk", f"{words.size(forecast.disk_bytes)} when done: {', '.join(parts)}"
    paused = " and paused" if study.pruner.pauses else ""
    yield "", f"at most {words.size(forecast.running_bytes)} more for checkpoints of running{paused} trials"


def _memory(forecast: Forecast) -> Iterator[tuple[str, str]]:
    largest, host = forecast.largest, forecast.host
    peaks = sorted(1e6 * one.peak_memory_mb for one in forecast.measured)
    peak = (
        "more than is free" if largest.out_of_memory else f"at most {words.size(largest.peak_memory_mb * 1e6)} a trial"
    )
    where = f" ({words.settings(largest.hyperparameters)})" if largest.hyperparameters else ""
    gpu = host.free_memory_mb == math.inf
    yield "GPU memory" if gpu else "memory", f"{peak}{where}, typically {words.size(peaks[len(peaks) // 2])}"
    if host.sharing:
        yield "", host.sharing
    if not gpu:
        together = f"{words.plural(host.slots, 'trial')} at a time take up to {words.size(1e6 * forecast.memory_mb)}"
        yield "", f"{together}; {words.size(1e6 * host.free_memory_mb)} are free"


def _duration(study: StudyData, forecast: Forecast) -> Iterator[tuple[str, str]]:
    """Yield how long the study takes; where a pruner may save time, this is an upper bound."""
    host, hours = forecast.host, study.budget.hours
    at_least = "at least" if forecast.prunes else "about"
    if forecast.seconds is None or forecast.search_seconds is None:
        window = f"{hours:g} h, the budget" if hours else "an hour"
        count = words.plural(forecast.trials_in(hours or 1), "trial")
        yield "in all", f"{at_least} {count} in {window}, {host.slots} at a time"
        return
    total = words.span(forecast.seconds)
    yield "in all", f"at most {total}, without pruning" if forecast.prunes else total
    trials = f"{words.plural(forecast.trials or 0, 'trial')}, {host.slots} at a time"
    parts = [f"{words.span(host.start_seconds)} to start", f"{words.span(forecast.search_seconds)} for {trials}"]
    parts += [f"{words.span(forecast.confirm_seconds)} to confirm"] if forecast.confirm_seconds else []
    yield "", ", ".join(parts)
    if forecast.prunes and hours and forecast.seconds > 3600 * hours:
        done = words.plural(forecast.trials_in(hours), "trial")
        yield "", f"{at_least} {done} fit into budget.hours, {hours:g} h"


def _bytes(folder: Path, pattern: str) -> int:
    return sum(file.stat().st_size for file in folder.glob(pattern))


def domain(parameter: Float | Int | Choice | Expression) -> str:
    """Return the domain of a parameter, for example ``1e-6 … 1e-3, log``."""
    if isinstance(parameter, Expression):
        return f"= {parameter.expression}"
    if isinstance(parameter, Choice):
        text = ", ".join(words.setting(value) for value in parameter.choices)
    else:
        text = f"{words.setting(parameter.low)} … {words.setting(parameter.high)}"
        text += ", log" if parameter.log else ""
        text += f", step {parameter.step:g}" if parameter.step not in (None, 1) else ""
    return f"{text}  (nuisance)" if parameter.role == "nuisance" else text


def _space(space: Mapping[str, Any], depth: int = 0) -> list[tuple[str, str]]:
    rows = []
    for name, parameter in space.items():
        known = isinstance(parameter, (Float, Int, Choice, Expression))
        rows.append(("  " * depth + name, domain(parameter) if known else words.setting(parameter)))
        if isinstance(parameter, Choice):
            for branch, children in parameter.branches.items():
                if children:
                    rows += [("  " * (depth + 1) + branch, ""), *_space(children, depth + 2)]
    return rows


def _rows(table: Table, title: str, rows: list[tuple[str, str]]) -> None:
    if not rows:
        return
    inner = Table.grid(padding=(0, 2, 0, 0))
    for name, text in rows:
        inner.add_row(Text(name), Text(text))
    table.add_row(Text(title, style="dim"), inner)


def _options(options: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={words.setting(value, width=60)}" for name, value in options.items())
