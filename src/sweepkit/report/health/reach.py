"""Checks on the space: the best at an edge, a parameter without effect. Knows no page and no terminal."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from sweepkit.report.evidence import Evidence, configuration
from sweepkit.report.health.finding import Finding
from sweepkit.study import words
from sweepkit.study.parameters import Choice, Float, Int
from sweepkit.trial.trial import Trial

EDGE = 0.05
"""A best value this near to an end of its range, as a part of the range, lies at the edge."""
NEAR = 0.25
"""The outer part of a range in which most of the best trials must lie too, so that one lucky trial is no edge."""
TOP = 5
FEW_VALUES = 4
"""Whole numbers with fewer values than this always lie near an edge."""
ENOUGH_FOR_EFFECTS = 20
NO_EFFECT = 0.03
"""A parameter with less than this share of what sets good trials apart has no effect that can be seen."""
PARTS = 3
"""A range is looked at in so many parts,"""
SEVERAL = 3
"""and of a part with fewer trials than this nothing is known."""
ENOUGH = 5
"""With fewer trials than this the best lies anywhere."""


def at_an_edge(evidence: Evidence) -> Iterator[Finding]:
    """The best trial's value of a parameter lies at an end of its range."""
    best = evidence.best
    if best is None or len(evidence.ended) < ENOUGH:
        return
    top = evidence.answer.ranked[:TOP]
    for dimension, label in configuration(evidence.study, best).values():
        parameter = dimension.parameter
        if isinstance(parameter, Choice) or not isinstance(label, (int, float)):
            continue
        if isinstance(parameter, Int) and len(parameter.values) < FEW_VALUES:
            continue
        place = parameter.share(label)
        upper = place > 0.5
        others = [parameter.share(row.params[dimension.name]) for row in top if _has(parameter, row, dimension.name)]
        if EDGE < place < 1 - EDGE or (
            statistics.median(others) < 1 - NEAR if upper else statistics.median(others) > NEAR
        ):
            continue
        end, bound = ("high", parameter.high) if upper else ("low", parameter.low)
        wider = _wider(parameter, upper)
        name = dimension.name
        do = (
            f"Widen it and go on: {name}: {{{end}: {words.setting(wider)}}}; the same command keeps the trials there are."
            if upper or parameter.low > 0
            else f"If {words.setting(bound)} is the least there can be, fix {name} under training; else lower {end}."
        )
        yield Finding(
            check="at_an_edge",
            says=f"The best {name}, {words.setting(label)}, lies at the {'upper' if upper else 'lower'} edge of its range "
            f"({words.setting(parameter.low)} to {words.setting(parameter.high)}): the optimum may lie outside.",
            do=do,
            short=f"best {name} {words.setting(label)} lies at the edge ({end}: {words.setting(bound)})",
        )


def _has(parameter: Float | Int, row: Trial, name: str) -> bool:
    return name in row.params and parameter.contains(row.params[name])


def _wider(parameter: Float | Int, upper: bool) -> float:
    if parameter.log:
        return parameter.high * 10 if upper else parameter.low / 10
    half = (parameter.high - parameter.low) / 2
    lower = max(0.0, parameter.low - half) if parameter.low >= 0 else parameter.low - half
    wider = parameter.high + half if upper else lower
    return round(wider) if isinstance(parameter, Int) else wider


def no_effect(evidence: Evidence) -> Iterator[Finding]:
    """A parameter made no difference that can be seen."""
    if sum(bool(row.values) for row in evidence.ended) < ENOUGH_FOR_EFFECTS or len(evidence.study.objective.goals) > 1:
        return
    from sweepkit.report.mirror import importances, optuna_study

    shares = importances(optuna_study(evidence))
    idle = [name for name, share in shares.items() if share < NO_EFFECT and _good_everywhere(evidence, name)]
    if not idle or len(idle) == len(shares):
        return
    names = " and ".join(", ".join(idle).rsplit(", ", 1))
    one = len(idle) == 1
    yield Finding(
        check="no_effect",
        says=f"{names} made no difference that can be seen: {'its' if one else 'their'} share in what sets good trials "
        f"apart is below {NO_EFFECT:.0%}.",
        do=f"Fix {'it' if one else 'them'} under training and spend the trials on {max(shares, key=shares.__getitem__)}.",
        short=f"{names} made no visible difference",
    )


def _good_everywhere(evidence: Evidence, key: str) -> bool:
    """Whether every choice, or part of the range, reached half of what lies between a middling trial and the best.

    The share alone does not tell: where the search soon kept to one value, nearly all trials have it, the good and the bad.
    """
    reached: dict[object, list[float]] = {}
    parts: Sequence[object] = ()
    for row in evidence.ended:
        found = configuration(evidence.study, row).get(key) if row.values else None
        if found is None:
            continue
        parameter, label = found[0].parameter, found[1]
        if isinstance(parameter, Choice):
            parts, part = parameter.labels, label
        else:
            parts, part = range(PARTS), min(PARTS - 1, int(PARTS * parameter.share(float(label or 0))))
        reached.setdefault(part, []).append(row.values[0])
    values = [value for each in reached.values() for value in each]
    if any(len(reached.get(part, ())) < SEVERAL for part in parts):
        return False
    top, middling = max if evidence.maximize else min, statistics.median(values)
    half = evidence.better(top(values), middling) / 2
    return all(evidence.better(top(each), middling) >= half for each in reached.values())
