"""What health checks find in a study's trials, each as messages with what to do about them."""

from __future__ import annotations

import itertools
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence

from sweepkit.report import style
from sweepkit.report.answer import PAST, list_trials
from sweepkit.report.classes import ONE_CLASS, same_for_all
from sweepkit.report.evidence import Evidence, configuration
from sweepkit.report.mirror import importances, pruned_at
from sweepkit.report.rows import endings
from sweepkit.study import words
from sweepkit.study.configurations import key_of
from sweepkit.study.files import cause_kind, first_line
from sweepkit.study.parameters import Choice, Float, Int
from sweepkit.study.paths import CONSOLE
from sweepkit.trial.trial import Ending, Trial

MANY = 0.2
"""Share of trials that may go wrong (half of it: be repeated)."""
FEWEST = 3
"""Cases below which anything may be chance."""
SPARED = 0.75
"""Share of the good trials that must lie outside a region before the region is blamed for the bad ones."""
EDGE, NEAR = 0.05, 0.25
"""The optimum lies at an edge if it is in the outer 5 % of a range and the median of the best in the outer quarter."""
TOP = 5
FEW_VALUES = 4
"""Integers with fewer values than this always lie near an edge."""
LATE, NOTABLE = 0.2, 0.1
"""The last fifth of the trials must not improve the best by a tenth of its distance from the median."""
RISING = 0.05
"""Share of a curve's whole rise that its last evaluation must add for the curve to be rising still."""
NO_EFFECT = 0.03
"""An importance below this means no visible effect."""
PARTS = 3
"""Parts of a range that must each hold ``FEWEST`` trials, and a good one, before a parameter has no effect."""
WASTED, LATE_PRUNED = 0.2, 0.75
"""Share of the hours that may be lost; share of a whole trial's evaluations from which on pruning saved little."""

Said = Iterator[tuple[str, str]]
"""Messages of a check, each with its advice."""


def _best(evidence: Evidence) -> Trial:
    assert evidence.best is not None
    return evidence.best


def went_wrong(evidence: Evidence) -> Said:
    """Too many trials diverged, ran out of memory or failed."""
    for ending in (Ending.diverged, Ending.infeasible, Ending.failed):
        wrong = [row for row in evidence.ended if row.ending is ending]
        if len(wrong) < FEWEST or len(wrong) <= MANY * len(evidence.ended):
            continue
        count, region = f"{len(wrong)} of {len(evidence.ended)} trials {PAST[ending]}", _region(evidence, wrong)
        if ending is Ending.failed:
            [(kind, times)] = Counter(cause_kind(row.cause) for row in wrong).most_common(1)
            first = next(row for row in wrong if cause_kind(row.cause) == kind)
            console = evidence.study.place.trial(first.number) / CONSOLE
            message = (
                f"{count}, {times} of them like trial {first.number}: {first_line(first.cause) or 'no recorded cause'}."
            )
            advice = f"See {console}. sweep try debugs one configuration, sweep retry runs the failed trials again."
            yield message, advice
        elif region:
            yield f"{count}, all of them where {region[0]}.", region[1]
        else:
            yield f"{count}; no single hyperparameter explains it.", _WASTE[ending][1]


def _region(evidence: Evidence, wrong: Sequence[Trial]) -> tuple[str, str] | None:
    """Return the half-line of one numeric hyperparameter that holds all these trials and the fewest good ones, and advice."""
    others = [row for row in evidence.ended if row.values and row not in wrong]
    regions = []
    for name in sorted(set.intersection(*(set(row.params) for row in wrong))):
        bad = [row.params[name] for row in wrong]
        good = [row.params[name] for row in others if name in row.params]
        if not good or any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in (*bad, *good)):
            continue
        for bound, sign, side, end in ((min(bad), 1, "at least", "high"), (max(bad), -1, "at most", "low")):
            outside = [value for value in good if sign * value < sign * bound]
            limit = max(outside, key=lambda value: sign * value, default=bound)
            advice = f"Narrow the space: {name}: {{{end}: {words.setting(limit)}}}."
            regions.append((len(outside) / len(good), f"{name} is {side} {words.setting(bound)}", advice))
    spared, text, advice = max(regions, key=lambda region: region[0], default=(0.0, "", ""))
    return (text, advice) if spared >= SPARED else None


def predicts_the_same(evidence: Evidence) -> Said:
    """Trials whose metrics are those of a model that predicts the same for every row."""
    judged = sorted(evidence.ranked, key=lambda row: row.number)
    reasons = [(row, same) for row in judged if (same := same_for_all(evidence.study, row, evidence.labels))]
    if not reasons:
        return
    blind, (what, why) = [row for row, _ in reasons], reasons[0][1]
    text = f"{list_trials(blind).capitalize()} {'seem' if len(blind) > 1 else 'seems'} to {what}: {why}"
    cure = (
        "train longer or weight the classes" if what == ONE_CLASS else "train longer, or look at what the model reads"
    )
    advice = f"Such a model has learned nothing: raise the learning rate, {cure}."
    if evidence.baseline in blind:
        advice = f"A gain over such a baseline says little; choose a baseline that learns. {advice}"
    yield text + (f" in trial {blind[0].number}." if len(blind) > 1 else "."), advice


def no_gain(evidence: Evidence) -> Said:
    """Nothing beat the baseline, in the search or over new seeds."""
    chosen, baseline, best = evidence.chosen, evidence.baseline, _best(evidence)
    if chosen is None or baseline is None or chosen.number != baseline.number:
        return
    others = [row for row in evidence.ended if row.number != baseline.number]
    complete = sum(row.ending.ranks for row in others)
    rest = endings(row for row in others if not row.ending.ranks)
    message = f"None of the {complete} other complete trials beat the baseline" + (
        f"; incomplete: {rest}." if rest else "."
    )
    if best.number != baseline.number:
        message = f"Trial {best.number} led in the search, but over new seeds the baseline has the best mean."
    closer = "narrow the space around its values, or enqueue variations of it"
    yield message, f"Keep the baseline, or search closer to it: {closer}."


def all_the_same(evidence: Evidence) -> Said:
    """Every complete trial has the same value."""
    if len(evidence.tied) + 1 == len(evidence.ranked):
        yield (
            evidence.ties(),
            "Nothing can be learned from that: check that the metric depends on the model, and that the trials learn anything.",
        )


_WASTE = {
    Ending.failed: (
        "failed",
        "Fix the cause that sweep show names, then run sweep retry; sweep check --probe finds many of them before a run.",
    ),
    Ending.diverged: (
        "diverged",
        "Lower the upper end of the learning rate, or clip gradients with max_grad_norm.",
    ),
    Ending.infeasible: (
        "out of memory",
        "Let sweep check --probe measure the largest configuration, and narrow the space to what fits.",
    ),
    Ending.stopped: ("interrupted", "Run the same command: interrupted trials resume from their last checkpoint."),
}
"""Endings without a result: their names in the sum of wasted hours, and what to do about them."""
_PRUNED_LATE = (
    f"pruned after {LATE_PRUNED:.0%} of the evaluations or more",
    "Prune earlier, or not at all: a trial stopped near its end saves little.",
)
_AGAIN = (
    "attempts that started over",
    "Set checkpoints: {every: evaluation}, so that a trial resumes instead of starting over.",
)


def wasted_hours(evidence: Evidence) -> Said:
    """Many hours went into trials that failed, were pruned late, started over or were interrupted."""
    rows = [*evidence.rows, *evidence.confirmed]
    whole = max((len(row.intermediate) for row in evidence.ranked), default=0)
    lost: dict[tuple[str, str], float] = {}
    for row in rows:
        kind, seconds = _WASTE.get(row.ending, _AGAIN), row.seconds or 0.0
        if row.ending is Ending.pruned and len(row.intermediate) >= LATE_PRUNED * whole > 1:
            kind = _PRUNED_LATE
        elif kind is _AGAIN:
            seconds = 0.0 if row.confirm_of is not None else _started_over(evidence, row)
        lost[kind] = lost.get(kind, 0.0) + seconds
    total, spent = sum(row.seconds or 0.0 for row in rows), sum(lost.values())
    if spent > WASTED * total:
        parts = sorted(((seconds, *kind) for kind, seconds in lost.items() if seconds > 0), reverse=True)
        details = ", ".join(f"{name} {words.span(seconds)}" for seconds, name, _ in parts)
        yield f"{words.span(spent)} of {words.span(total)} of slot time produced no result: {details}.", parts[0][2]


def _started_over(evidence: Evidence, row: Trial) -> float:
    """Return the seconds of a trial's attempts after which the next one started from the first step."""
    stints = evidence.course(row).stints
    over = (one for one, following in itertools.pairwise(stints) if not following.resumed)
    return sum((one.end or one.start) - one.start for one in over)


def seed_noise(evidence: Evidence) -> Said:
    """The best trials differ by less than two seeds of one configuration do."""
    noise, top = evidence.seed_spread, evidence.ranked[:3]
    gap = abs(top[0].values[0] - top[-1].values[0])
    if noise is None or gap >= noise:
        return
    numbers = words.join([str(row.number) for row in top])
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
        return f"Go by the means over new seeds, not by the order of the search: {words.join(apart)}."
    first = next(estimate for estimate in verdict.estimates if estimate.number in top)
    judged = words.join([str(estimate.number) for estimate in verdict.estimates if estimate.number in top])
    return (
        f"Over new seeds trials {judged} are not distinguishable either; trial {first.number} has the best mean. "
        f"For a clearer answer, confirm with more seeds: confirm: {{seeds: {2 * len(first.values)}}}."
    )


def pruned_winner(evidence: Evidence) -> Said:
    """The pruner would have stopped the best trial if it had come last."""
    best, name = _best(evidence), evidence.study.pruner.title
    step = pruned_at(evidence, best) if best is not evidence.baseline else None
    if step is None:
        return
    later = evidence.study.pruner.kind.later(step) or f"let trials train beyond evaluation {step}"
    message = (
        f"If trial {best.number}, the best of the search, had come last, {name} would have pruned it at evaluation {step} of "
        f"{max(best.intermediate)}, at {words.value(best.intermediate[step])}."
    )
    if any(row.ending is Ending.pruned and len(row.intermediate) <= step for row in evidence.ended):
        message += " Trials that start as slowly were pruned before their outcome was known."
    yield message, f"Prune later, or less: {later}."


def at_an_edge(evidence: Evidence) -> Said:
    """The best value of a hyperparameter lies at an end of its range."""
    top = [configuration(evidence.study, row) for row in evidence.ranked[:TOP]]
    for key, (dimension, label) in top[0].items():
        parameter, name = dimension.parameter, dimension.name
        if isinstance(parameter, Choice) or not isinstance(label, (int, float)):
            continue
        if isinstance(parameter, Int) and len(parameter.values) < FEW_VALUES:
            continue
        share = parameter.share(label)
        middle = statistics.median(style.position(*each[key]) for each in top if key in each)
        upper = share >= 1 - EDGE and middle >= 1 - NEAR
        if not upper and not (share <= EDGE and middle <= NEAR):
            continue
        end = "high" if upper else "low"
        message = (
            f"The best {name}, {words.setting(label)}, lies at the {'upper' if upper else 'lower'} edge of its range "
            f"({words.setting(parameter.low)} to {words.setting(parameter.high)}); the optimum may lie outside."
        )
        wider = f"{name}: {{{end}: {words.setting(_wider(parameter, upper))}}}"
        advice = f"Widen the range and run the same command; the trials so far are kept: {wider}."
        if not upper and parameter.low <= 0:
            bound = words.setting(parameter.low)
            advice = f"If {bound} is the lowest possible value, fix {name} under training; otherwise lower low."
        yield message, advice


def _wider(parameter: Float | Int, upper: bool) -> float:
    if parameter.log:
        return parameter.high * 10 if upper else parameter.low / 10
    half = (parameter.high - parameter.low) / 2
    lower = max(0.0, parameter.low - half) if parameter.low >= 0 else parameter.low - half
    wider = parameter.high + half if upper else lower
    return round(wider) if isinstance(parameter, Int) else wider


def training_still_improving(evidence: Evidence) -> Said:
    """The best trials were still learning at their last evaluation."""
    top = evidence.ranked[:FEWEST]
    rising = [row for row in top if _rising(evidence, [value for _, value in evidence.curve(row)])]
    if not rising or rising[0] is not top[0] or 2 * len(rising) <= len(top):
        return
    curve, training = [value for _, value in evidence.curve(top[0])], evidence.study.training
    length = next((name for name in ("max_steps", "num_train_epochs") if name in training), "num_train_epochs")
    now = training.get(length, 3)
    longer = f"{length}: {words.setting(2 * now)}" if isinstance(now, (int, float)) and now > 0 else length
    message = (
        f"Trial {top[0].number}, the best of the search, was still improving at its last evaluation "
        f"({words.value(curve[-2])} to {words.value(curve[-1])}): training stopped too early."
    )
    yield message, f"Train longer, for example with {longer} under training, as a new study or with --fresh."


def _rising(evidence: Evidence, curve: list[float]) -> bool:
    if len(curve) < FEWEST:
        return False
    before = max(curve[:-1]) if evidence.maximize else min(curve[:-1])
    return evidence.better(curve[-1], before) > RISING * abs(evidence.better(curve[-1], curve[0]))


def search_still_improving(evidence: Evidence) -> Said:
    """The budget ended while the best value was still improving."""
    best, able = _best(evidence), evidence.ranked
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
    yield message, f"Continue with the same command and {more}; the trials so far are kept."


def no_effect(evidence: Evidence) -> Said:
    """A hyperparameter made no visible difference."""
    shares = importances(evidence)
    idle = [name for name, share in shares.items() if share < NO_EFFECT and _good_everywhere(evidence, name)]
    if not idle or len(idle) == len(shares):
        return
    its, them = ("its", "it") if len(idle) == 1 else ("their", "them")
    message = (
        f"{words.join(idle)} made no visible difference: {its} importance is below {NO_EFFECT:.0%}, and every part of "
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


def duplicates(evidence: Evidence) -> Said:
    """Configurations were trained more than once with the same seed."""
    trained = [row for row in evidence.ended if row.ending is not Ending.failed and row.params]
    counts = Counter(key_of(row.params) for row in trained)
    repeated = sum(counts.values()) - len(counts)
    if repeated < FEWEST or repeated <= MANY * len(trained) / 2:
        return
    redraw = "Remove duplicates: train. " if evidence.study.duplicates == "train" else ""
    message = f"{repeated} of {len(trained)} trials repeat a configuration with the same seed, which adds nothing."
    yield message, f"{redraw}There are {len(counts)} distinct ones: widen the space or lower the budget."
