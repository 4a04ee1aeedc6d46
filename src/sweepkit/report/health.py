"""The health of a study: which checks of its trials had enough data, and what they found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sweepkit.report import checks
from sweepkit.report.checks import FEWEST, Said
from sweepkit.report.classes import Labels, judges
from sweepkit.report.evidence import Evidence
from sweepkit.study import words

UNCHECKED = "unchecked"
"""Name of the finding that lists the checks without enough data."""
EXPECTED, SEARCH, EDGES, EFFECTS = 5, 10, 10, 20
"""Trials from which on the gain over the baseline, convergence, edges and effects are judged."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong, or could be better, in a study."""

    check: str
    """Name of the check, for example ``at_an_edge``."""
    message: str
    advice: str


Need = Callable[[Evidence], str]
"""Returns what a check lacks in words, or nothing."""


@dataclass(frozen=True)
class _Check:
    subject: str
    find: Callable[[Evidence], Said]
    needs: Sequence[Need]
    several: bool = False
    """Whether it is made of studies with several goals, too."""
    applies: Callable[[Evidence], bool] = lambda evidence: True


def findings(evidence: Evidence) -> list[Finding]:
    """Return everything found, the most pressing first, and last what was not checked.

    Empty where every check had enough data and found nothing.
    """
    found = [
        Finding(check=check.find.__name__, message=message, advice=advice)
        for check, missing in _applicable(evidence)
        if not missing
        for message, advice in check.find(evidence)
    ]
    if lacking := checks_without_data(evidence):
        checks = len(_applicable(evidence))
        complete = f"{len(evidence.ranked)} of {words.plural(len(evidence.rows), 'trial')} complete"
        looked = f"{complete}: {checks - len(lacking)} of {checks} checks had enough data"
        message = f"{looked}. Not checked: {', '.join(lacking)}."
        needed = "What a check needs is in parentheses; until it has that, its answer is unknown."
        found.append(Finding(check=UNCHECKED, message=message, advice=needed))
    return found


def checks_without_data(evidence: Evidence) -> list[str]:
    """Return the checks that lack data, each with what it needs, for example ``edges of the space (10 complete trials)``."""
    return [f"{check.subject} ({missing})" for check, missing in _applicable(evidence) if missing]


def _applicable(evidence: Evidence) -> list[tuple[_Check, str]]:
    """Return the checks of a study of this kind, each with the first thing it lacks."""
    applicable = [check for check in CHECKS if check.applies(evidence) and (check.several or not evidence.several)]
    return [(check, next(filter(None, (need(evidence) for need in check.needs)), "")) for check in applicable]


def _need(what: str, enough: Callable[[Evidence], bool]) -> Need:
    return lambda evidence: "" if enough(evidence) else what


def _ended(count: int) -> Need:
    return _need(words.plural(count, "ended trial"), lambda e: len(e.ended) >= count)


def _complete(count: int) -> Need:
    return _need(words.plural(count, "complete trial"), lambda e: len(e.ranked) >= count)


def _judged(evidence: Evidence, labels: Labels) -> bool:
    """Whether a goal, or a metric that trials report, shows when the same is predicted for every row, given the labels."""
    names = {goal.metric for goal in evidence.study.objective.goals}.union(*(row.metrics for row in evidence.ranked))
    return any(judges(name, labels) for name in names)


_BASELINE = _need("a baseline that was trained to its end", lambda e: e.reference is not None)
_LABELS = _need("the labels of the validation rows", lambda e: _judged(e, e.labels))
_CURVES = _need(f"{FEWEST} evaluations per trial", lambda e: len(e.curve(e.ranked[0])) >= FEWEST)
_END = _need("the end of the run", lambda e: e.state.status != "running")
_SEEDS = _need("confirm or seed_per_trial", lambda e: e.seed_spread is not None)
_TIMES = _need("recorded times", lambda e: any(row.seconds for row in e.rows))

CHECKS = (
    _Check("trials that go wrong", checks.went_wrong, [_ended(FEWEST)], several=True),
    _Check(
        "models that predict the same for every row",
        checks.predicts_the_same,
        [_complete(1), _LABELS],
        several=True,
        applies=lambda e: _judged(e, Labels([1], 1.0)),
    ),
    _Check("gain over the baseline", checks.no_gain, [_BASELINE, _ended(EXPECTED), _complete(2)]),
    _Check("differences between trials", checks.all_the_same, [_complete(FEWEST)]),
    _Check("noise between seeds", checks.seed_noise, [_complete(2), _SEEDS]),
    _Check("wasted hours", checks.wasted_hours, [_ended(FEWEST), _TIMES], several=True),
    _Check(
        "pruning of good trials",
        checks.pruned_winner,
        [_complete(1)],
        applies=lambda e: e.study.pruner.stops and not e.study.pruner.pauses,
    ),
    _Check("edges of the space", checks.at_an_edge, [_complete(EDGES)]),
    _Check("length of training", checks.training_still_improving, [_complete(1), _CURVES]),
    _Check("convergence of the search", checks.search_still_improving, [_END, _ended(SEARCH), _complete(SEARCH // 2)]),
    _Check("hyperparameters without effect", checks.no_effect, [_complete(EFFECTS)]),
    _Check(
        "repeated configurations",
        checks.duplicates,
        [_ended(FEWEST)],
        several=True,
        applies=lambda e: not e.study.seed_per_trial,
    ),
)
"""All checks, the most pressing first."""
