"""Checks on the winner: is it one at all, would it have survived, is it luck. Knows no page and no terminal."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from sweepkit.report.evidence import Evidence
from sweepkit.report.health.finding import Finding
from sweepkit.study import words
from sweepkit.study.configurations import key_of
from sweepkit.trial.trial import Ending

ENOUGH = 5
"""With fewer trials than this nothing can be expected of a search."""


def no_gain(evidence: Evidence) -> Iterator[Finding]:
    """Nothing beat the baseline, be it in the search or over new seeds."""
    chosen, baseline, best = evidence.chosen, evidence.baseline, evidence.best
    if chosen is None or baseline is None or chosen.number != baseline.number or len(evidence.ended) < ENOUGH:
        return
    found = f"none of {len(evidence.ended) - 1} configurations beat the baseline"
    if best is not None and best.number != baseline.number:
        found = (
            f"trial {best.number}'s lead in the search is not confirmed: over new seeds the baseline has the best mean"
        )
    yield Finding(
        check="no_gain",
        says=f"{found[0].upper()}{found[1:]}.",
        do="Keep the baseline, or search nearer to it: a space around its values, or enqueue neighbours of it.",
        short=found,
    )


def seed_noise(evidence: Evidence) -> Iterator[Finding]:
    """Another seed moves a value further than the gap between the top trials."""
    noise, top = spread_of_seeds(evidence), evidence.answer.ranked[:3]
    if noise is None or len(top) < 2 or evidence.best is None:
        return
    values = [row.values[0] for row in top]
    gap = abs(values[0] - values[-1])
    if gap >= noise:
        return
    numbers = ", ".join(str(row.number) for row in top)
    yield Finding(
        check="seed_noise",
        says=f"The best {len(top)} trials ({numbers}) lie within {words.value(gap)} of each other; another seed alone "
        f"moves a value by {words.value(noise)} (standard deviation).",
        do=_told_apart(evidence, {row.number for row in top}),
        short=f"the best {len(top)} differ by less ({words.value(gap)}) than seeds do ({words.value(noise)})",
    )


def _told_apart(evidence: Evidence, top: set[int]) -> str:
    """What to do about top trials whose order may be chance: what the confirmation says of them, where there is one."""
    comparisons, estimates = (
        (evidence.verdict.comparisons, evidence.verdict.estimates) if evidence.verdict else ((), ())
    )
    pairs = [pair for pair in comparisons if {pair.better, pair.worse} <= top]
    apart = [f"trial {pair.better} is better than trial {pair.worse}" for pair in pairs if pair.distinguishable]
    if apart:
        return f"Go by the confirmation's means, not by the search's order: {', '.join(apart)}."
    if pairs:
        first = next(estimate for estimate in estimates if estimate.number in top)
        more = f"confirm: {{seeds: {2 * len(first.values)}}} would tell more"
        return f"The confirmation cannot tell them apart either; trial {first.number} has the best mean, and {more}."
    return "Take them as equally good and choose the cheapest; confirm: {top: 3, seeds: 10} would tell more."


def spread_of_seeds(evidence: Evidence) -> float | None:
    """Return the standard deviation of the first goal between trainings that differ in their seed alone, pooled.

    Taken from the confirmation, else from configurations that were trained twice; None where there are none.
    """
    able = [row for row in evidence.confirmed if row.ending is Ending.complete and row.values]
    if not able and evidence.study.seed_per_trial:
        able = [row for row in evidence.rows if row.ending is Ending.complete and row.values]
    groups: dict[str, list[float]] = {}
    for row in able:
        params = {name: value for name, value in row.params.items() if name != "seed"}
        groups.setdefault(key_of(params), []).append(row.values[0])
    several = [values for values in groups.values() if len(values) > 1]
    freedom = sum(len(values) - 1 for values in several)
    if not freedom:
        return None
    return float((sum(statistics.variance(values) * (len(values) - 1) for values in several) / freedom) ** 0.5)


def pruned_winner(evidence: Evidence) -> Iterator[Finding]:
    """The pruner would have stopped the winner, had it come later."""
    best = evidence.best
    if best is None or evidence.study.pruner.type == "none":
        return
    from sweepkit.report.replay import stopped_at

    step = stopped_at(evidence, best)
    if step is None:
        return
    name, last = evidence.study.pruner.type, max(best.intermediate)
    advice = evidence.study.pruner.kind.later(step)
    yield Finding(
        check="pruned_winner",
        says=f"Had trial {best.number}, the best, come last, {name} would have stopped it at evaluation {step} of {last}, "
        f"at {words.value(best.intermediate[step])}; other late starters were stopped for good.",
        do=f"Prune later or less: {advice or f'let trials train beyond evaluation {step}'}.",
        short=f"{name} would have stopped the best trial at evaluation {step}, had it come last",
    )
