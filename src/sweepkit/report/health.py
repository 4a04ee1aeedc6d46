"""Health checks: what the trials of a study say about the study itself, and what to do about it."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sweepkit.report.evidence import Evidence, configuration
from sweepkit.report.mirror import importances, optuna_study, pruned_at
from sweepkit.report.verdict import listed
from sweepkit.study import words
from sweepkit.study.configurations import key_of
from sweepkit.study.files import first_line
from sweepkit.study.parameters import Choice, Float, Int
from sweepkit.study.paths import CONSOLE
from sweepkit.study.samplers import PRUNERS
from sweepkit.trial.trial import Ending, Trial

EXPECTED, MANY = 5, 0.2
"""Trials after which the baseline should be beaten; share of them that may go wrong (half of it: be repeated)."""
FEWEST = 3
"""Cases below which anything may be chance."""
SPARED = 0.75
"""Share of the good trials that must lie outside a region before the region is blamed for the bad ones."""
EDGE, NEAR = 0.05, 0.25
"""The optimum lies at an edge if it is in the outer 5 % of a range and the median of the best in the outer quarter."""
TOP = 5
FEW_VALUES = 4
"""Integers with fewer values than this always lie near an edge."""
SEARCH, LATE, NOTABLE = 10, 0.2, 0.1
"""From ten trials on, the last fifth must not improve the best by a tenth of its distance from the median."""
RISING = 0.05
"""Share of a curve's whole rise that its last evaluation must add for the curve to be rising still."""
EFFECTS, NO_EFFECT = 20, 0.03
"""From twenty trials on, an importance below 3 % means no visible effect."""
PARTS = 3
"""Parts of a range that must each hold ``FEWEST`` trials, and a good one, before a parameter has no effect."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong, or could be better, in a study."""

    check: str
    """Name of the check, for example ``at_an_edge``."""
    message: str
    advice: str


Said = Iterator[tuple[str, str]]
"""Messages of a check, each with its advice."""
Need = Callable[[Evidence], str]
"""Returns what a check lacks in words, or nothing."""


@dataclass(frozen=True)
class _Check:
    subject: str
    find: Callable[[Evidence], Said]
    needs: Sequence[Need]
    applies: Callable[[Evidence], bool]


_CHECKS: list[_Check] = []
"""All checks, the most pressing first: in the order of the functions below."""


def findings(evidence: Evidence) -> list[Finding]:
    """Return everything found, the most pressing first; empty for a healthy study."""
    return [
        Finding(check=check.find.__name__.removeprefix("_"), message=message, advice=advice)
        for check, missing in _applicable(evidence)
        if not missing
        for message, advice in check.find(evidence)
    ]


def unchecked(evidence: Evidence) -> list[str]:
    """Return the checks that lack data, each with what it needs, for example ``edges of the space (5 ended trials)``."""
    return [f"{check.subject} ({missing})" for check, missing in _applicable(evidence) if missing]


def _applicable(evidence: Evidence) -> list[tuple[_Check, str]]:
    """Return the checks of a study of this kind, each with the first thing it lacks."""
    checks = [check for check in _CHECKS if check.applies(evidence)]
    return [(check, next(filter(None, (need(evidence) for need in check.needs)), "")) for check in checks]


def _check(
    subject: str,
    *needs: Need,
    applies: Callable[[Evidence], bool] = lambda evidence: True,
    several: bool = False,
) -> Callable[[Callable[[Evidence], Said]], Callable[[Evidence], Said]]:
    """Return a decorator that adds a check; ``several``: also of studies with several goals."""

    def add(find: Callable[[Evidence], Said]) -> Callable[[Evidence], Said]:
        _CHECKS.append(_Check(subject, find, needs, lambda e: applies(e) and (several or not e.answer.several)))
        return find

    return add


def _need(what: str, enough: Callable[[Evidence], bool]) -> Need:
    return lambda evidence: "" if enough(evidence) else what


def _ended(count: int) -> Need:
    return _need(words.plural(count, "ended trial"), lambda e: len(e.ended) >= count)


def _complete(count: int) -> Need:
    return _need(words.plural(count, "complete trial"), lambda e: len(e.answer.ranked) >= count)


_BASELINE = _need("a baseline", lambda e: e.baseline is not None)
_SEEDS = _need("confirm or seed_per_trial", lambda e: e.seed_spread is not None)
_CURVES = _need(f"{FEWEST} evaluations per trial", lambda e: len(e.curve(_best(e))) >= FEWEST)
_END = _need("the end of the run", lambda e: not e.running)
_VALUES = _need(f"{EFFECTS} trials with a value", lambda e: sum(bool(row.values) for row in e.ended) >= EFFECTS)


def _best(evidence: Evidence) -> Trial:
    assert evidence.best is not None
    return evidence.best


@_check("trials that go wrong", _ended(FEWEST), several=True)
def _went_wrong(evidence: Evidence) -> Said:
    """Too many trials diverged, ran out of memory or failed."""
    for ending, verb in (
        (Ending.diverged, "diverged"),
        (Ending.infeasible, "ran out of memory"),
        (Ending.failed, "failed"),
    ):
        wrong = [row for row in evidence.ended if row.ending is ending]
        if len(wrong) < FEWEST or len(wrong) <= MANY * len(evidence.ended):
            continue
        count, region = f"{len(wrong)} of {len(evidence.ended)} trials {verb}", _region(evidence, wrong)
        if ending is Ending.failed:
            [(cause, times)] = Counter(first_line(row.cause) or "no recorded cause" for row in wrong).most_common(1)
            console = evidence.study.place.trial(wrong[0].number) / CONSOLE
            message = f"{count}, {times} of them with: {cause}."
            advice = f"See {console}. sweep try debugs one configuration, sweep retry runs the failed trials again."
        elif region:
            message, advice = f"{count}, most of them where {region.text}.", region.advice
        else:
            message = f"{count}; no single hyperparameter explains it."
            advice = (
                "Lower the upper end of the learning rate, or clip gradients with max_grad_norm."
                if ending is Ending.diverged
                else "Remove the largest batch size, sequence length or model from the space."
            )
        yield message, advice


@dataclass(frozen=True)
class _Region:
    text: str
    advice: str
    spared: float
    """Share of the good trials outside."""


def _region(evidence: Evidence, wrong: Sequence[Trial]) -> _Region | None:
    """Return the half-line of one numeric hyperparameter that holds all these trials and the fewest good ones."""
    others = [row for row in evidence.ended if row.values and row not in wrong]
    regions = []
    for name in sorted({name for row in wrong for name in row.params}):
        bad = [row.params[name] for row in wrong if name in row.params]
        good = [row.params[name] for row in others if name in row.params]
        if not good or any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in (*bad, *good)):
            continue
        for bound, sign, side, end in ((min(bad), 1, "at least", "high"), (max(bad), -1, "at most", "low")):
            outside = [value for value in good if sign * value < sign * bound]
            limit = max(outside, key=lambda value: sign * value, default=bound)
            advice = f"Narrow the space: {name}: {{{end}: {words.setting(limit)}}}."
            text = f"{name} is {side} {words.setting(bound)}"
            regions.append(_Region(text, advice, len(outside) / len(good)))
    best = max(regions, key=lambda region: region.spared, default=None)
    return best if best and best.spared >= SPARED else None


@_check("gain over the baseline", _BASELINE, _ended(EXPECTED), _complete(1))
def _no_gain(evidence: Evidence) -> Said:
    """Nothing beat the baseline, in the search or over new seeds."""
    chosen, baseline, best = evidence.chosen, evidence.baseline, _best(evidence)
    if chosen is None or baseline is None or chosen.number != baseline.number:
        return
    message = f"None of {len(evidence.ended) - 1} configurations beat the baseline."
    if best.number != baseline.number:
        message = f"Trial {best.number} led in the search, but over new seeds the baseline has the best mean."
    closer = "narrow the space around its values, or enqueue variations of it"
    yield message, f"Keep the baseline, or search closer to it: {closer}."


@_check("noise between seeds", _complete(2), _SEEDS)
def _seed_noise(evidence: Evidence) -> Said:
    """The best trials differ by less than two seeds of one configuration do."""
    noise, top = evidence.seed_spread, evidence.answer.ranked[:3]
    gap = abs(top[0].values[0] - top[-1].values[0])
    if noise is None or gap >= noise:
        return
    numbers = listed([str(row.number) for row in top])
    message = (
        f"The best {len(top)} trials ({numbers}) differ by {words.value(gap)}, less than the standard deviation "
        f"between seeds ({words.value(noise)})."
    )
    yield message, _distinguish(evidence, {row.number for row in top})


def _distinguish(evidence: Evidence, top: set[int]) -> str:
    """Return what to do about trials whose order may be chance, going by the confirmation where there is one."""
    verdict = evidence.verdict
    pairs = [pair for pair in verdict.comparisons if {pair.better, pair.worse} <= top] if verdict else []
    if verdict is None or not pairs:
        return "Treat them as equally good and take the cheapest, or compare them with confirm: {top: 3, seeds: 10}."
    if apart := [f"trial {pair.better} is better than trial {pair.worse}" for pair in pairs if pair.distinguishable]:
        return f"Go by the means over new seeds, not by the order of the search: {listed(apart)}."
    first = next(estimate for estimate in verdict.estimates if estimate.number in top)
    return (
        f"The confirmation does not distinguish them either; trial {first.number} has the best mean. "
        f"For a clearer answer, confirm with more seeds: confirm: {{seeds: {2 * len(first.values)}}}."
    )


@_check("pruning of good trials", _complete(1), applies=lambda e: e.study.pruner.stops)
def _pruned_winner(evidence: Evidence) -> Said:
    """The pruner would have stopped the best trial if it had come last."""
    best, name = _best(evidence), evidence.study.pruner.type
    step = pruned_at(evidence, best)
    if step is None:
        return
    later = PRUNERS[name].later(step) or f"let trials train beyond evaluation {step}"
    message = (
        f"If trial {best.number}, the best, had come last, {name} would have pruned it at evaluation {step} of "
        f"{max(best.intermediate)}, at {words.value(best.intermediate[step])}. Trials that start slowly like it were pruned."
    )
    yield message, f"Prune later or less: {later}."


@_check("edges of the space", _ended(EXPECTED), _complete(1))
def _at_an_edge(evidence: Evidence) -> Said:
    """The best value of a hyperparameter lies at an end of its range."""
    top = evidence.answer.ranked[:TOP]
    for dimension, label in configuration(evidence.study, _best(evidence)).values():
        parameter, name = dimension.parameter, dimension.name
        if isinstance(parameter, Choice) or not isinstance(label, (int, float)):
            continue
        if isinstance(parameter, Int) and len(parameter.values) < FEW_VALUES:
            continue
        share = parameter.share(label)
        middle = statistics.median(
            parameter.share(row.params[name]) for row in top if parameter.contains(row.params.get(name))
        )
        upper = share >= 1 - EDGE and middle >= 1 - NEAR
        if not upper and not (share <= EDGE and middle <= NEAR):
            continue
        end = "high" if upper else "low"
        message = (
            f"The best {name}, {words.setting(label)}, lies at the {'upper' if upper else 'lower'} edge of its range "
            f"({words.setting(parameter.low)} to {words.setting(parameter.high)}); the optimum may lie outside."
        )
        wider = f"{name}: {{{end}: {words.setting(_wider(parameter, upper))}}}"
        advice = f"Widen the range and run the same command; the trials so far stay: {wider}."
        if not upper and parameter.low <= 0:
            bound = words.setting(parameter.low)
            advice = f"If {bound} is the lowest possible value, fix {name} under training; else lower low."
        yield message, advice


def _wider(parameter: Float | Int, upper: bool) -> float:
    if parameter.log:
        return parameter.high * 10 if upper else parameter.low / 10
    half = (parameter.high - parameter.low) / 2
    lower = max(0.0, parameter.low - half) if parameter.low >= 0 else parameter.low - half
    wider = parameter.high + half if upper else lower
    return round(wider) if isinstance(parameter, Int) else wider


@_check("length of training", _complete(1), _CURVES)
def _training_still_improving(evidence: Evidence) -> Said:
    """The best trials were still learning at their last evaluation."""
    top = evidence.answer.ranked[:FEWEST]
    rising = [row for row in top if _rising(evidence, [value for _, value in evidence.curve(row)])]
    if not rising or rising[0] is not top[0] or 2 * len(rising) <= len(top):
        return
    curve, training = [value for _, value in evidence.curve(top[0])], evidence.study.training
    length = next((name for name in ("max_steps", "num_train_epochs") if name in training), "num_train_epochs")
    now = training.get(length, 3)
    longer = f"{length}: {words.setting(2 * now)}" if isinstance(now, (int, float)) and now > 0 else length
    message = (
        f"Trial {top[0].number}, the best, was still improving at its last evaluation ({words.value(curve[-2])} to "
        f"{words.value(curve[-1])}): training stopped too early."
    )
    yield message, f"Train longer, for example with {longer} under training, as a new study or with --fresh."


def _rising(evidence: Evidence, curve: list[float]) -> bool:
    if len(curve) < FEWEST:
        return False
    before = max(curve[:-1]) if evidence.maximize else min(curve[:-1])
    return evidence.better(curve[-1], before) > RISING * abs(evidence.better(curve[-1], curve[0]))


@_check("convergence of the search", _END, _ended(SEARCH), _complete(SEARCH // 2))
def _search_still_improving(evidence: Evidence) -> Said:
    """The budget ended while the best value was still improving."""
    best, able = _best(evidence), evidence.answer.ranked
    late = sorted(row.number for row in evidence.ended)[-max(2, round(LATE * len(evidence.ended))) :]
    before = next((row for row in able if row.number < late[0]), None)
    if before is None or best.number < late[0]:
        return
    median = statistics.median(row.values[0] for row in able)
    gained = evidence.better(best.values[0], before.values[0])
    if gained < NOTABLE * evidence.better(best.values[0], median) or gained <= 0:
        return
    trials = evidence.study.budget.trials
    more = f"budget: {{trials: {round(1.5 * max(trials, len(evidence.ended)))}}}" if trials else "a larger budget"
    message = (
        f"The search was still improving when it ended: its last {len(late)} trials took {evidence.goal.metric} "
        f"from {words.value(before.values[0])} to {words.value(best.values[0])}."
    )
    yield message, f"Continue with the same command and {more}; the trials so far stay."


@_check("hyperparameters without effect", _VALUES)
def _no_effect(evidence: Evidence) -> Said:
    """A hyperparameter made no visible difference."""
    shares = importances(optuna_study(evidence))
    idle = [name for name, share in shares.items() if share < NO_EFFECT and _good_everywhere(evidence, name)]
    if not idle or len(idle) == len(shares):
        return
    its, them = ("its", "it") if len(idle) == 1 else ("their", "them")
    message = (
        f"{listed(idle)} made no visible difference: {its} importance is below {NO_EFFECT:.0%}, and every part of "
        f"{its} range has good trials."
    )
    yield message, f"Fix {them} under training and spend the trials on {max(shares, key=shares.__getitem__)}."


def _good_everywhere(evidence: Evidence, key: str) -> bool:
    """Whether every choice, or part of the range, reached half the distance between the median trial and the best.

    Importance alone is not enough: where the search soon settled on one value, good and bad trials alike have it.
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
    if any(len(reached.get(part, ())) < FEWEST for part in parts):
        return False
    top, median = max if evidence.maximize else min, statistics.median(values)
    half = evidence.better(top(values), median) / 2
    return all(evidence.better(top(each), median) >= half for each in reached.values())


@_check("repeated configurations", _ended(FEWEST), applies=lambda e: not e.study.seed_per_trial, several=True)
def _duplicates(evidence: Evidence) -> Said:
    """Configurations were trained more than once with the same seed."""
    trained = [row for row in evidence.ended if row.ending is not Ending.failed and row.params]
    counts = Counter(key_of(row.params) for row in trained)
    repeated = sum(counts.values()) - len(counts)
    if repeated < FEWEST or repeated <= MANY * len(trained) / 2:
        return
    redraw = "Remove duplicates: train. " if evidence.study.duplicates == "train" else ""
    message = f"{repeated} of {len(trained)} trials repeat a configuration with the same seed, which adds nothing."
    yield message, f"{redraw}There are {len(counts)} distinct ones: widen the space or lower the budget."
