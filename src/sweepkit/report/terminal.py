"""A study and its trials as tables and short texts on a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from shlex import quote
from typing import Any

import typer
from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweepkit.check.find import is_found_by_name
from sweepkit.report.answer import Answer
from sweepkit.report.rows import endings as counted
from sweepkit.report.rows import open_failures
from sweepkit.report.watch import Moment, Outcome, fraction, read_state
from sweepkit.study import words
from sweepkit.study.files import cause_kind, first_line
from sweepkit.study.paths import CONSOLE, Place, project_root
from sweepkit.study.study import StudyData
from sweepkit.trackers import tracker_of
from sweepkit.trial.trial import Ending, Trial, lineage

COLUMNS_MOST = 6
"""Up to this many hyperparameters get a column each; more share one."""
PARAMETERS_WIDTH = 80
"""Characters that these columns may take."""
PIPED_WIDTH = 120
STYLES = {
    Ending.complete: "green",
    Ending.pruned: "yellow",
    Ending.infeasible: "magenta",
    Ending.diverged: "magenta",
    Ending.failed: "red",
    Ending.stopped: "dim",
    Ending.paused: "blue",
    Ending.running: "cyan",
    Ending.waiting: "dim",
}


STATES = {"done": "green", "failed": "red", "interrupted": "yellow", "running": "cyan"}
UNFINISHED = ("interrupted", "not running")


def console(*, stderr: bool = False) -> Console:
    """Return a console; into a pipe it writes wide enough for tables."""
    out = Console(stderr=stderr, highlight=False)
    return out if out.is_terminal else Console(stderr=stderr, highlight=False, width=PIPED_WIDTH)


def show(content: RenderableType) -> None:
    """Print to standard output; into a pipe without trailing blanks."""
    out = console()
    if out.is_terminal:
        out.print(content)
        return
    with out.capture() as captured:
        out.print(content)
    typer.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def goals(study: StudyData) -> str:
    """Return what is optimised, for example ``eval_f1 ↑``."""
    return ", ".join(goal.title for goal in study.objective.goals)


def heading(study: StudyData) -> Text:
    """Return a study's name, goals, sampler and pruner in one line."""
    facts = study.sampler.title + (f" + {study.pruner.title}" if study.pruner.title != "none" else "")
    return Text.assemble((study.name, "bold"), ("  ", ""), (f"{goals(study)} · {facts}", "dim"))


def short_path(path: Path, here: Path | None = None) -> str:
    """Return a path relative to a folder, by default the current one, where it lies below."""
    here = here or Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def argument(place: Place) -> str:
    """Return the argument STUDY as typed here: the name where it is found by it, the folder elsewhere."""
    near = project_root(Path.cwd()) == place.root or is_found_by_name(place)
    return place.name if near else quote(short_path(place.folder))


def trials(answer: Answer, rows: Sequence[Trial], *, endings: bool = False) -> Table:
    """Return a table of some of a study's trials; where it has a baseline and one goal, with the gain over it."""
    gains = answer.baseline is not None and not answer.several
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    metrics = [goal.metric for goal in answer.study.objective.goals]
    for head in ["trial", *["ending"] * endings, *metrics, *["gain"] * gains, "time"]:
        table.add_column(head, justify="left" if head == "ending" else "right", no_wrap=True)
    texts = _parameters(rows)
    for name in texts:
        # On a narrow terminal these shrink first: rich narrows columns that may wrap.
        table.add_column(Text(words.name(name), no_wrap=True, overflow="ellipsis"))
    for index, row in enumerate(rows):
        cells = [_Whole(column[index]) for column in texts.values()]
        reached = f" at {max(row.intermediate)}" if row.ending is Ending.paused and row.intermediate else ""
        ending = [Text(f"{row.ending}{reached}", style=STYLES[row.ending])] * endings
        values = [Text(words.value(value)) for value in [*row.values, *[None] * len(metrics)][: len(metrics)]]
        time = Text("–" if row.seconds is None else words.span(row.seconds))
        table.add_row(Text(str(row.number)), *ending, *values, *[Text(gain(answer, row))] * gains, time, *cells)
    if rows and gains and not endings:
        table.rows[0].style = "bold"
    return table


def _parameters(rows: Sequence[Trial]) -> dict[str, list[list[str]]]:
    """Return the columns of the trials' parameters: one for each, or one for all where they would take too much room."""
    names = list(dict.fromkeys(name for row in rows for name in row.params))
    texts = {name: [[words.setting(row.params[name])] if name in row.params else [] for row in rows] for name in names}
    wide = [
        max([len(words.name(name)), *(len(part) for cell in cells for part in cell)]) for name, cells in texts.items()
    ]
    if len(names) > COLUMNS_MOST or sum(wide) + 2 * len(wide) > PARAMETERS_WIDTH:
        return {"parameters": [_settings(row.params) for row in rows]}
    return texts


def _settings(params: Mapping[str, Any]) -> list[str]:
    return [words.settings({name: content}) for name, content in params.items()]


@dataclass(frozen=True)
class _Whole:
    """A cell of several texts, of which a narrow column shows as many as fit: part of a number would be another number."""

    parts: Sequence[str]

    def __str__(self) -> str:
        return " ".join(self.parts)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, max(1, len(str(self))))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = list(self.parts)
        while shown and len(" ".join([*shown, *["…"] * (len(shown) < len(self.parts))])) > options.max_width:
            shown.pop()
        yield Text(" ".join([*shown, *["…"] * (len(shown) < len(self.parts))]), no_wrap=True)


def gain(answer: Answer, row: Trial) -> str:
    """Return a trial's gain over the baseline as a table has it."""
    if answer.baseline and row.number == answer.baseline.number:
        return "baseline"
    amount = answer.gain(row)
    return "" if amount is None else words.difference(amount)


def running(study: StudyData, moments: Mapping[int, Moment], why: Mapping[int, str] | None = None) -> Table:
    """Return a table of running or paused trials: number, parameters, progress, time, last and best value, and why they are.

    The time is that of the present attempt. A confirmation run has the number of the trial that it repeats.
    """
    table = Table.grid(padding=(0, 2, 0, 0))
    for column in range(7 if why else 6):
        # On a narrow terminal the parameters shrink first: rich narrows columns that may wrap.
        table.add_column(justify="left" if column else "right", no_wrap=column != 1, overflow="ellipsis")
    best = max if study.objective.goals[0].direction == "maximize" else min
    for number, moment in moments.items():
        done, last = fraction(study, moment), ", ".join(map(words.value, moment.values))
        spent = f" in {words.span(int(time.time() - moment.since))}" if moment.since else ""
        several = len(moment.history) > 1 and len(study.objective.goals) == 1  # several goals have no best evaluation
        table.add_row(
            Text(str(number if moment.confirm_of is None else moment.confirm_of), style="cyan"),
            _Whole(_settings(moment.params)),
            Text() if done is None else ProgressBar(1.0, done, width=12, complete_style="cyan", finished_style="cyan"),
            Text(f"step {moment.step} epoch {moment.epoch:.3g}{spent}" if moment.step else "starting", style="dim"),
            Text(f"last {last}" if last else ""),
            Text(f"best {words.value(best(moment.history))}" if several else ""),
            *([Text(why.get(number, ""), style="dim")] if why else []),
        )
    return table


def parameters(trial: Trial, rows: Iterable[Trial] = ()) -> Table:
    """Return a trial's hyperparameters, one per line; of a population's member, all values its weights were trained with.

    ``rows`` are the study's trials: a member's weights may come from others of them.
    """
    known = {row.number: row for row in rows} | {trial.number: trial}
    root, turns = lineage({number: row.schedule for number, row in known.items()}, trial.number)
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, first in known.get(root, trial).params.items():
        values = [first, *(turn.hyperparameters.get(name, first) for turn in turns)]
        distinct = [key for key, _ in groupby(words.setting(value, width=80) for value in values)]
        table.add_row(Text(name, style="dim"), Text(" → ".join(distinct)))
    return table


def failures(study: StudyData, rows: Iterable[Trial], *, most: int = 5) -> RenderableType | None:
    """Return what went wrong, grouped by cause, and the first log; None where nothing did."""
    wrong = [row for row in rows if row.ending in (Ending.failed, Ending.infeasible, Ending.diverged)]
    if not wrong:
        return None
    causes: dict[tuple[Ending, str], list[Trial]] = {}
    for row in wrong:
        causes.setdefault((row.ending, cause_kind(row.cause)), []).append(row)
    table = Table.grid(padding=(0, 2, 0, 0))
    for alike in sorted(causes.values(), key=len, reverse=True)[:most]:
        listed = ", ".join(str(row.number) for row in alike[:4]) + (" …" if len(alike) > 4 else "")
        ending, first = alike[0].ending, first_line(alike[0].cause) or "no cause recorded"
        table.add_row(
            Text(f"trial{'s' if len(alike) > 1 else ''} {listed}"), Text(ending, style=STYLES[ending]), Text(first)
        )
    if len(causes) > most:
        more = words.plural(len(causes) - most, "more cause")
        table.add_row(Text(more, style="dim"), Text(""), Text(""))
    log = study.place.trial(wrong[0].number) / CONSOLE
    return Group(table, Text(f"see {short_path(log)}", style="dim")) if log.exists() else table


def hours(ledger: Mapping[str, float]) -> Text:
    """Return the ledger in one line, without entries of zero hours."""
    spent = [f"{name} {words.span(amount * 3600)}" for name, amount in ledger.items() if amount > 0]
    return Text.assemble(("spent  ", "dim"), " · ".join(spent) or "nothing yet")


def answer(found: Answer) -> RenderableType | None:
    """Return the chosen trial, what it gained, its parameters and checkpoint; with several goals the Pareto front."""
    best_trials = found.winners
    if not best_trials:
        return None
    if found.several:
        count = words.plural(len(best_trials), "trial")
        return Group(Text(f"Pareto front: {count}", style="bold"), trials(found, best_trials))
    [best] = best_trials
    value = found.estimate.text if found.estimate else words.value(best.value)
    line = Text.assemble(
        ("best  ", "dim"), (f"trial {best.number}", "bold"), f"  {found.goal.metric} ", (value, "bold green")
    )
    line.append(f"  {found.versus()}".rstrip())
    if found.estimate:
        line.append(f"\n      {words.value(best.value)} in the search", style="dim")
    lines: list[RenderableType] = [line, Padding(parameters(best, found.rows), (0, 0, 0, 6))]
    if best.checkpoint is not None:
        lines.append(Text.assemble(("      checkpoint  ", "dim"), short_path(best.checkpoint)))
    said = [found.verdict.conclusion()] if found.verdict else []
    return Group(*lines, *(Padding(Text(note), (0, 0, 0, 6)) for note in [*said, *found.notes()]))


def overview(studies: Sequence[Answer]) -> Table:
    """Return a table of studies: progress, best, start, and whether a driver runs."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    for title in ("study", "trials", "objective", "best", "started", "state"):
        table.add_column(title, justify="right" if title in ("trials", "best") else "left", no_wrap=True)
    for found in studies:
        study, rows = found.study, found.rows
        state = read_state(study, rows).status
        best, ended = found.winners, len(found.ended)
        value = found.estimate.mean if found.estimate else best[0].value if best else None
        started = min((row.started for row in rows if row.started), default="–")
        progress = f"{ended}/{study.budget.trials}" if study.budget.trials is not None else str(ended)
        table.add_row(
            Text(study.name, style="bold"),
            progress,
            goals(study),
            words.value(value) if not found.several else f"front of {len(best)}",
            started.replace("T", " ")[:16],
            Text(f"{state} {progress}" if state in UNFINISHED else state, style=STATES.get(state, "dim")),
        )
    return table


def commands(study: StudyData, rows: Sequence[Trial]) -> RenderableType:
    """Return the commands that make sense next."""
    name, tracker = argument(study.place), tracker_of(study).name
    table = Table.grid(padding=(0, 2, 0, 0))
    for command, meaning, useful in (
        ("show {}", "every trial, and where the hours went", True),
        ("retry {} --failed", "run the failed trials again, once their cause is fixed", open_failures(rows)),
        ("report {}", "figures, findings and what to do next, as one page", rows),
        ("best {}", "the checkpoint's path, for $(…)", Answer(study, rows).winners),
        ("ui {}", f"curves and parameters in {tracker}", tracker),
    ):
        if useful:
            table.add_row(Text(f"  sweep {command.format(name)}", style="cyan"), Text(meaning, style="dim"))
    return Group(Text("next", style="dim"), table)


def summary(outcome: Outcome, study: StudyData) -> RenderableType:
    """Return the summary of a run: the best trial and its gain, what went wrong, and the next commands."""
    found = Answer.read(study, outcome.rows)
    ended = found.ended
    counts = f" ({counted(ended)})" if ended else ""
    head = Text.assemble(
        (study.name, "bold"),
        "  ",
        (outcome.status, STATES[outcome.status]),
        f"  {words.plural(len(ended), 'trial')}{counts} in {words.span(outcome.seconds)}",
    )
    parts: list[RenderableType] = [Text(), head]
    if outcome.reason and outcome.reason != outcome.status:
        parts.append(Text(outcome.reason, style="" if outcome.status == "done" else STATES[outcome.status]))
    if outcome.status == "interrupted":
        parts.append(Text("Nothing finished is lost: the same command resumes the study."))
    if (best := answer(found)) is not None:
        parts += [Text(), best]
    elif ended:
        parts += [Text(), Text("No trial completed, so there is no best one.")]
    if (wrong := failures(study, outcome.rows)) is not None:
        parts += [Text(), Text("went wrong", style="dim"), Padding(wrong, (0, 0, 0, 2))]
    last = [Text(), Text(outcome.undelivered, style="yellow")] if outcome.undelivered else []
    return Group(*parts, Text(), commands(study, outcome.rows), *last)
