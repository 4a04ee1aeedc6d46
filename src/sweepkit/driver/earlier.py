"""Finds what a study takes from earlier ones: configurations to try first, and the ranks of others (``start_from``)."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from math import isfinite
from statistics import NormalDist
from typing import Any

from sweepkit.check.fields.models import configuration
from sweepkit.check.fields.tasks import TaskFacts, task_facts
from sweepkit.check.find import stored_study
from sweepkit.check.rules.names import models_of
from sweepkit.report.answer import Answer
from sweepkit.report.rows import read
from sweepkit.search.records import Earlier
from sweepkit.study import words
from sweepkit.study.configurations import Configurations, key_of
from sweepkit.study.errors import InputError, SweepError
from sweepkit.study.files import first_line
from sweepkit.study.names import parts
from sweepkit.study.parameters import Choice, Domain
from sweepkit.study.paths import STUDY
from sweepkit.study.space import visit
from sweepkit.study.study import AUTO, MLFLOW, StudyData
from sweepkit.trackers import tracker_of
from sweepkit.trackers.courier import answering
from sweepkit.trial.trial import Ending, Trial

SHARE = 5
"""At most one trial in this many comes from earlier studies."""
WITHOUT_BUDGET = 8
"""At most this many come from earlier studies where budget.trials is not set."""
RANKED = 64
"""At most this many trials' ranks are taken, over all studies."""
SOURCES = 8
"""Studies that ``auto`` takes from at most."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Source:
    """A study's trials, the best first: each one's name and its values, fixed ones included."""

    name: str
    trials: Sequence[tuple[str, Mapping[str, Any]]]
    complete: int
    """How many of them, from the first on, were trained to their end."""


def earlier(study: StudyData, known: Mapping[str, Any], say: Say) -> Earlier:
    """Return what a study takes now, and say so; ``known`` has its fixed values and consumers' defaults by name.

    Raises InputError for a study or an experiment that does not exist.
    """
    found: list[Source] = []
    for name in study.start_from:
        if name.startswith(MLFLOW):
            found.append(_of_mlflow(study, name))
        else:
            found += _of_project(study, say) if name == AUTO else _of_name(study, name, say)
    return take(study, known, {each.name: each for each in found}.values(), say)


def take(study: StudyData, known: Mapping[str, Any], sources: Iterable[Source], say: Say) -> Earlier:
    """Return the best configurations of these studies in turns, as far as the space allows them, and all ranks."""
    sources, configurations = list(sources), Configurations(study, known)
    trials = study.budget.trials
    most = WITHOUT_BUDGET if trials is None else trials // SHARE
    given_by_hand = [
        *study.enqueue,
        *([] if study.baseline is None else [configurations.baseline(study.baseline).hyperparameters]),
    ]
    first: dict[str, tuple[str, Mapping[str, Any]]] = {}
    turns = zip_longest(*([(each.name, *trial) for trial in each.trials[: each.complete]] for each in sources))
    for name, label, given in filter(None, chain.from_iterable(turns)):
        if len(first) == most:
            break
        values, changed = _within(study, given)
        try:
            configurations.ensure_possible(values)
        except InputError as error:
            say(f"start_from: {name}, {label} is left out: {first_line(error)}")
            continue
        tried = any(values.items() <= own.items() for own in given_by_hand)
        if values and not tried and key_of(values) not in first:
            first[key_of(values)] = f"{name}, {label}", values
            if changed:
                say(f"start_from: {name}, {label}: {'; '.join(changed)}")
    each = max(1, RANKED // max(1, len(sources)))
    ranked = [pair for source in sources for pair in _ranks(study, source, each)]
    taken = [origin for origin, _ in first.values()]
    say(f"start_from: {words.join(taken) if taken else 'nothing is taken'}")
    return Earlier(study.start_from, list(first.values()), ranked)


def _ranks(study: StudyData, source: Source, most: int) -> Iterator[tuple[Mapping[str, Any], float]]:
    """Yield some of a study's trials with the normal scores of their ranks among all of them."""
    count = len(source.trials)
    taken = min(most, count)
    for place in [turn * (count - 1) // max(1, taken - 1) for turn in range(taken)]:
        values, _ = _within(study, source.trials[place][1])
        if values:
            yield values, NormalDist().inv_cdf(1 - (place + 0.5) / count)


def _within(study: StudyData, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return those of the values that the space can have, numbers clipped to it, and what was changed, in words."""
    values, nearest = dict[str, Any](), dict[str, Any]()
    for each in visit(study.space):
        parameter, value = each.parameter, given.get(each.name)
        if not isinstance(parameter, Domain) or each.name not in given:
            continue
        if parameter.contains(value):
            values.setdefault(each.name, value)
        elif isinstance(parameter, Choice) or isinstance(value, bool) or not isinstance(value, (int, float)):
            nearest.setdefault(each.name, None)
        elif isfinite(value):
            clipped = min(max(value, parameter.low), parameter.high)
            nearest[each.name] = clipped if parameter.contains(clipped) else parameter.at(parameter.share(clipped))
    changed = []
    for name in nearest.keys() - values.keys():
        was, now = words.setting(given[name]), nearest[name]
        changed.append(
            f"{name} {was} {'is not searched and is drawn' if now is None else f'became {words.setting(now)}'}"
        )
    return {**{name: value for name, value in nearest.items() if value is not None}, **values}, sorted(changed)


def _of_project(study: StudyData, say: Say) -> list[Source]:
    """Return the project's studies that fit: those that share most names first, among these the latest."""
    folders = [path.parent for path in study.place.runs.glob(f"[!.]*/{STUDY}") if path.parent.name != study.name]
    fitting = []
    for folder in folders:
        try:
            other = stored_study(folder)
            if _kind(study) and _kind(other) and not _misfit(study, other) and _family(study) == _family(other):
                shared = len(_searched(study) & _searched(other))
                fitting.append((-shared, -other.place.study_json.stat().st_mtime, folder.name))
        except SweepError as error:
            say(f"start_from: {folder.name} is left out: {first_line(error)}")
    wanted = [name for shared, _, name in sorted(fitting) if -2 * shared >= len(_searched(study))]
    return [source for name in wanted[:SOURCES] for source in _of_name(study, name, say)]


def _of_name(study: StudyData, name: str, say: Say) -> Iterator[Source]:
    """Yield the study of this name in the project, if it fits."""
    if not (study.place.runs / name / STUDY).exists():
        raise InputError(f"start_from: no study {name} ran in {study.place.root}")
    try:
        other = stored_study(study.place.runs / name)
        rows = read(other)
    except SweepError as error:
        say(f"start_from: {name} is left out: {first_line(error)}")
        return
    if why := _misfit(study, other):
        say(f"start_from: {name} is left out: {why}")
        return
    yield source_of(Answer.read(other, rows), name)


def source_of(answer: Answer, name: str) -> Source:
    """Return a study's trials, the best first: complete ones, confirmed ones before others, then pruned and lost ones."""
    other, rows = answer.study, answer.rows
    complete = sorted(answer.ranked, key=lambda row: _confirmed(answer, row))
    key = other.objective.key_of
    pruned = [row for row in rows if row.ending is Ending.pruned and row.intermediate]
    pruned.sort(key=lambda row: (-max(row.intermediate), -key(row.intermediate[max(row.intermediate)])))
    lost = [row for row in rows if row.ending in (Ending.diverged, Ending.infeasible)]
    trials = [(f"trial {row.number}", {**other.fixed, **row.params}) for row in (*complete, *pruned, *lost)]
    return Source(name, trials, len(complete))


def _confirmed(answer: Answer, row: Trial) -> tuple[bool, float]:
    """Return what confirmed trials are sorted by: they come first, by their mean over new seeds."""
    estimate = answer.verdict.estimate(row.number) if answer.verdict else None
    return estimate is None, 0.0 if estimate is None else -answer.study.objective.key_of(estimate.mean)


def _of_mlflow(study: StudyData, name: str) -> Source:
    """Return the finished runs of an experiment by the study's first metric; of their kind of task nothing is known."""
    goal, tracker = study.objective.goals[0], tracker_of(study)
    with answering(tracker, "the runs to start from", did="give"):
        runs = tracker.finished(name.removeprefix(MLFLOW))
    measured = [(label, params, metrics[goal.metric]) for label, params, metrics in runs if goal.metric in metrics]
    better = -1 if goal.direction == "maximize" else 1
    ordered = sorted((run for run in measured if isfinite(run[2])), key=lambda run: better * run[2])
    adapted = _adapted(study.fixed, _searched(study))
    found = [(f"run {label}", {key: _value(text) for key, text in params.items()}) for label, params, _ in ordered]
    found = [(label, values) for label, values in found if _adapted(values, ()) == adapted]
    if not found:
        raise InputError(f"start_from: {name} has no finished run with {goal.metric}{' and LoRA' if adapted else ''}")
    return Source(name, found, len(found))


def _value(text: str) -> Any:
    """Return the value of a parameter that MLflow has as text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _misfit(study: StudyData, other: StudyData) -> str:
    """Return why nothing is taken from another study; empty where it fits, as far as is known."""
    kinds = [_kind(each) for each in (study, other)]
    if all(kinds) and kinds[0] != kinds[1]:
        return f"its task is {kinds[1]}, and this one is {kinds[0]}"
    adapted = [_adapted(each.fixed, _searched(each)) for each in (study, other)]
    if adapted[0] != adapted[1]:
        return f"it was trained {'with' if adapted[1] else 'without'} LoRA"
    return "" if _searched(study) & _searched(other) else "it searched none of the names"


def _searched(study: StudyData) -> set[str]:
    return {each.name for each in visit(study.space) if isinstance(each.parameter, Domain)}


def _adapted(*names: Any) -> bool:
    return any(parts(name)[0] == "peft" for name in chain(*names))


def _facts(study: StudyData) -> TaskFacts | None:
    try:
        return None if study.task.pickle else task_facts(study.task, study.home)
    except InputError:  # its file may be gone
        return None


def _kind(study: StudyData) -> str:
    """Return the kind of task; empty where it is not known."""
    facts = _facts(study)
    return "" if facts is None else facts.kind or f"{facts.folder}/{facts.label}"


def _family(study: StudyData) -> set[str]:
    """Return the types of the models that a study trains, the models themselves where that cannot be read from here."""
    models = [model for _, model in models_of(study, _facts(study))]
    return {str((configuration(model, study.home) or {"model_type": model})["model_type"]) for model in models}
