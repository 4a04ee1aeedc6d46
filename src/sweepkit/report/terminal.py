"""A study and its trials as tables and short texts on a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from shlex import quote

import typer
from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sweepkit.report.answer import Answer
from sweepkit.report.rows import endings as counted
from sweepkit.report.rows import failed
from sweepkit.report.verdict import Verdict
from sweepkit.report.watch import Moment, Outcome, fraction
from sweepkit.study import words
from sweepkit.study.files import first_line
from sweepkit.study.locks import lock_owner
from sweepkit.study.paths import CONSOLE, Place, project_root
from sweepkit.study.study import StudyData
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
    Ending.running: "cyan",
    Ending.waiting: "dim",
}


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
    facts = study.sampler.type + (f" + {study.pruner.type}" if study.pruner.type != "none" else "")
    return Text.assemble((study.name, "bold"), ("  ", ""), (f"{goals(study)} · {facts}", "dim"))


def short_path(path: Path) -> str:
    """Return a path relative to the current folder where it lies below."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def argument(place: Place) -> str:
    """Return the argument STUDY as typed here: the name within the project, the folder elsewhere."""
    return place.name if project_root(Path.cwd()) == place.root else quote(short_path(place.folder))


def trials(study: StudyData, rows: Sequence[Trial], *, against: Trial | None = None, endings: bool = False) -> Table:
    """Return a table of trials; with ``against`` (the baseline) a column for the gain over it."""
    goals = study.objective.goals
    against = against if len(goals) == 1 else None
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    heads = ["trial", *(["ending"] * endings), *(goal.metric for goal in goals), *(["gain"] if against else []), "time"]
    for head in heads:
        table.add_column(head, justify="left" if head == "ending" else "right", no_wrap=True)
    names = list(dict.fromkeys(name for row in rows for name in row.params))
    single = len(names) > COLUMNS_MOST or sum(_width(name, rows) for name in names) > PARAMETERS_WIDTH
    for name in ["parameters"] if single else names:
        # On a narrow terminal these shrink first: rich narrows columns that may wrap.
        table.add_column(Text(words.name(name), no_wrap=True, overflow="ellipsis"))
    for row in rows:
        settings = [words.settings(row.params)] if single else [_setting(name, row) for name in names]
        cells = [Text(text, no_wrap=True, overflow="ellipsis") for text in settings]
        table.add_row(*_facts(study, row, against, endings=endings), *cells)
    if rows and against:
        table.rows[0].style = "bold"
    return table


def _facts(study: StudyData, row: Trial, against: Trial | None, *, endings: bool) -> list[Text]:
    """Return a trial's cells up to its hyperparameters."""
    cells = [Text(str(row.number)), *([Text(row.ending, style=STYLES[row.ending])] if endings else [])]
    values = [*row.values, *[None] * len(study.objective.goals)][: len(study.objective.goals)]
    cells += [Text(words.value(value)) for value in values]
    cells += [Text(_gain(study, row, against))] if against else []
    return [*cells, Text("–" if row.seconds is None else words.span(row.seconds))]


def _setting(name: str, row: Trial) -> str:
    return words.setting(row.params[name]) if name in row.params else ""


def _width(name: str, rows: Sequence[Trial]) -> int:
    """Return the characters that a hyperparameter's column takes, with the gap to the next."""
    return 2 + max(len(words.name(name)), *(len(_setting(name, row)) for row in rows))


def _gain(study: StudyData, row: Trial, against: Trial) -> str:
    if row.number == against.number:
        return "baseline"
    gain = Answer(study, (row, against)).gain(row)
    return "" if gain is None else words.difference(gain)


def running(study: StudyData, moments: Mapping[int, Moment]) -> Table:
    """Return a table of running trials: number, parameters, progress, last and best value."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for column in range(6):
        # On a narrow terminal the parameters shrink first: rich narrows columns that may wrap.
        table.add_column(justify="left" if column else "right", no_wrap=column != 1, overflow="ellipsis")
    single = len(study.objective.goals) == 1
    for number, moment in moments.items():
        done, last = fraction(study, moment), ", ".join(map(words.value, moment.values))
        table.add_row(
            Text(str(number), style="cyan"),
            Text(words.settings(moment.params), no_wrap=True, overflow="ellipsis"),
            Text() if done is None else ProgressBar(1.0, done, width=12, complete_style="cyan", finished_style="cyan"),
            Text(f"step {moment.step} epoch {moment.epoch:.3g}" if moment.step else "starting", style="dim"),
            Text(f"last {last}" if last else ""),
            # With several goals there is no best evaluation.
            Text(f"best {words.value(_best(study, moment))}" if single and len(moment.history) > 1 else ""),
        )
    return table


def _best(study: StudyData, moment: Moment) -> float:
    return (max if study.objective.goals[0].direction == "maximize" else min)(moment.history)


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
    causes = Counter((row.ending, row.cause) for row in wrong)
    table = Table.grid(padding=(0, 2, 0, 0))
    for (ending, cause), count in causes.most_common(most):
        numbers = [row.number for row in wrong if (row.ending, row.cause) == (ending, cause)]
        listed = ", ".join(map(str, numbers[:4])) + (" …" if count > 4 else "")
        first = first_line(cause) or "no cause recorded"
        table.add_row(
            Text(f"trial{'s' if count > 1 else ''} {listed}"), Text(ending, style=STYLES[ending]), Text(first)
        )
    if len(causes) > most:
        table.add_row(Text(f"{len(causes) - most} more causes", style="dim"), Text(""), Text(""))
    log = study.place.trial(wrong[0].number) / CONSOLE
    return Group(table, Text(f"see {short_path(log)}", style="dim")) if log.exists() else table


def hours(ledger: Mapping[str, float]) -> Text:
    """Return the ledger in one line, without entries of zero hours."""
    spent = [f"{name} {words.span(amount * 3600)}" for name, amount in ledger.items() if amount > 0]
    return Text.assemble(("spent  ", "dim"), " · ".join(spent) or "nothing yet")


def answer(study: StudyData, rows: Sequence[Trial]) -> RenderableType | None:
    """Return the best trial with its gain, parameters and checkpoint or, with several goals, the Pareto front."""
    found = Answer.read(study, rows)
    best_trials = found.winners
    if not best_trials:
        return None
    if found.several:
        count = words.plural(len(best_trials), "trial")
        return Group(Text(f"Pareto front: {count}", style="bold"), trials(study, best_trials))
    [best] = best_trials
    line = Text.assemble(("best  ", "dim"), (f"trial {best.number}", "bold"), f"  {study.objective.goals[0].metric} ")
    line += _over_new_seeds(found.verdict, best) if found.verdict else _over_the_baseline(found, best)
    lines: list[RenderableType] = [line, Padding(parameters(best, rows), (0, 0, 0, 6))]
    if best.checkpoint is not None:
        lines.append(Text.assemble(("      checkpoint  ", "dim"), short_path(best.checkpoint)))
    return Group(*lines)


def _over_the_baseline(found: Answer, best: Trial) -> Text:
    """Return the best trial's value in the search, and its gain."""
    against, gain = found.baseline, found.gain(best)
    line = Text(words.value(best.value), style="bold green")
    if against is not None and best.number == against.number:
        return Text.assemble(line, "  the baseline itself; no trial beat it")
    if against is None or gain is None:
        return line
    source = f" (trial {against.number}: {words.value(against.value)})"
    return Text.assemble(line, f"  {words.difference(gain)} over the baseline", (source, "dim"))


def _over_new_seeds(verdict: Verdict, best: Trial) -> Text:
    """Return the best trial's mean over new seeds, its gain, and its value in the search."""
    mine, baseline = verdict.estimate(best.number), next((e for e in verdict.estimates if e.baseline), None)
    assert mine is not None  # the chosen one has the best mean
    value = f"{words.value(mine.mean)} ± {words.value(mine.std)}"
    line = Text.assemble((value, "bold green"), f" over {words.plural(len(mine.values), 'new seed')}")
    if baseline is mine:
        line.append("  the baseline itself; nothing beat it")
    elif baseline is not None:
        line.append(f"  {words.difference(abs(mine.mean - baseline.mean))} over the baseline")
        line.append(f" (trial {baseline.number}: {words.value(baseline.mean)})", style="dim")
    return line.append(f"\n      {words.value(best.value)} in the search", style="dim")


def overview(studies: Sequence[tuple[StudyData, Sequence[Trial]]]) -> Table:
    """Return a table of studies: progress, best, start, and whether a driver runs."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    for title in ("study", "trials", "objective", "best", "started", "state"):
        table.add_column(title, justify="right" if title in ("trials", "best") else "left", no_wrap=True)
    for study, rows in studies:
        found = Answer.read(study, rows)
        best = found.winners
        ended = sum(row.ending.counts for row in rows)
        started = min((row.started for row in rows if row.started), default="–")
        table.add_row(
            Text(study.name, style="bold"),
            f"{ended}/{study.budget.trials}" if study.budget.trials is not None else str(ended),
            goals(study),
            words.value(best[0].value if best else None) if not found.several else f"front of {len(best)}",
            started.replace("T", " ")[:16],
            Text("running", style="cyan") if lock_owner(study.place) else Text("–", style="dim"),
        )
    return table


def commands(study: StudyData, rows: Sequence[Trial]) -> RenderableType:
    """Return the commands that make sense next."""
    name = argument(study.place)
    table = Table.grid(padding=(0, 2, 0, 0))
    for command, meaning, useful in (
        ("show {}", "every trial, and where the hours went", True),
        ("retry {} --failed", "run the failed trials again, once their cause is fixed", failed(rows)),
        ("best {}", "the checkpoint's path, for $(…)", Answer(study, rows).winners),
        ("ui {}", "curves and parameters in MLflow", study.tracking.uri != "none"),
    ):
        if useful:
            table.add_row(Text(f"  sweep {command.format(name)}", style="cyan"), Text(meaning, style="dim"))
    return Group(Text("next", style="dim"), table)


def summary(outcome: Outcome, study: StudyData) -> RenderableType:
    """Return the summary of a run: the best trial and its gain, what went wrong, and the next commands."""
    styles = {"done": "green", "failed": "red", "interrupted": "yellow"}
    ended = [row for row in outcome.rows if row.ending.counts]
    counts = f" ({counted(ended)})" if ended else ""
    head = Text.assemble(
        (study.name, "bold"),
        "  ",
        (outcome.status, styles[outcome.status]),
        f"  {words.plural(len(ended), 'trial')}{counts} in {words.span(outcome.seconds)}",
    )
    parts: list[RenderableType] = [Text(), head]
    if outcome.reason and outcome.reason != outcome.status:
        parts.append(Text(outcome.reason, style="" if outcome.status == "done" else styles[outcome.status]))
    if outcome.status == "interrupted":
        parts.append(Text("Nothing finished is lost: the same command resumes the study."))
    if (best := answer(study, outcome.rows)) is not None:
        parts += [Text(), best]
    elif ended:
        parts += [Text(), Text("No trial completed, so there is no best one.")]
    if (wrong := failures(study, outcome.rows)) is not None:
        parts += [Text(), Text("went wrong", style="dim"), Padding(wrong, (0, 0, 0, 2))]
    return Group(*parts, Text(), commands(study, outcome.rows))
