"""Checks on trials that brought nothing: those that went wrong, and those trained twice. Knows no page and no terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sweepkit.report.evidence import Evidence
from sweepkit.report.health.finding import Finding
from sweepkit.study import words
from sweepkit.study.configurations import key_of
from sweepkit.study.files import first_line
from sweepkit.study.paths import CONSOLE
from sweepkit.trial.trial import Ending, Trial

TOO_MANY = 0.2
"""Part of the trials that may go wrong, or be repeated, before it is said."""
FEWEST = 3
"""Fewer cases than this are chance."""
SURE = 0.75
"""Part of the good trials that a region must spare before it is blamed."""


def went_wrong(evidence: Evidence) -> Iterator[Finding]:
    """Too many trials diverged, did not fit into memory, or failed."""
    for ending, verb in (
        (Ending.diverged, "diverged"),
        (Ending.infeasible, "ran out of memory"),
        (Ending.failed, "failed"),
    ):
        wrong = [row for row in evidence.ended if row.ending is ending]
        if len(wrong) < FEWEST or len(wrong) <= TOO_MANY * len(evidence.ended):
            continue
        count = f"{len(wrong)} of {len(evidence.ended)} trials {verb}"
        where = _where(evidence, wrong)
        if ending is Ending.failed:
            [(cause, times)] = Counter(first_line(row.cause) or "no cause recorded" for row in wrong).most_common(1)
            says = f"{count}, {times} of them with: {cause}."
            console = evidence.study.place.trial(wrong[0].number) / CONSOLE
            do = f"Read {console}; sweep try runs one configuration in a debugger, sweep retry runs them again."
        elif where:
            says, do = f"{count}, most of them where {where.text}.", where.advice
        elif ending is Ending.diverged:
            says, do = (
                f"{count}, with nothing in common.",
                "Lower the learning rate's range, or clip with max_grad_norm.",
            )
        else:
            says, do = f"{count}, with nothing in common.", "Lower the largest batch, length or model of the space."
        yield Finding(check="went_wrong", says=says, do=do, short=f"{count}{f', where {where.text}' if where else ''}")


@dataclass(frozen=True)
class _Region:
    text: str
    advice: str
    sureness: float


def _where(evidence: Evidence, wrong: Sequence[Trial]) -> _Region | None:
    """Return the half-line of one numeric parameter, or the choice, that tells these trials from the others best."""
    others = [row for row in evidence.ended if row.values and row not in wrong]
    regions = []
    for name in sorted({name for row in wrong for name in row.params}):
        bad = [row.params[name] for row in wrong if name in row.params]
        good = [row.params[name] for row in others if name in row.params]
        if not good or any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in (*bad, *good)):
            continue
        for bound, sign, side, end in ((min(bad), 1, "at least", "high"), (max(bad), -1, "at most", "low")):
            spared = sum(sign * value < sign * bound for value in good) / len(good)
            inside = sorted(good, key=lambda v: -sign * v)
            limit = next((v for v in inside if sign * v < sign * bound), None)
            advice = f"Narrow the space: {name}: {{{end}: {words.setting(bound if limit is None else limit)}}}."
            regions.append(_Region(f"{name} is {side} {words.setting(bound)}", advice, spared))
    best = max(regions, key=lambda region: region.sureness, default=None)
    return best if best and best.sureness >= SURE else None


def duplicates(evidence: Evidence) -> Iterator[Finding]:
    """Configurations were trained more than once, without new seeds."""
    if evidence.study.seed_per_trial:
        return
    trained = [row for row in evidence.ended if row.ending is not Ending.failed and row.params]
    counts = Counter(key_of(row.params) for row in trained)
    repeated = sum(counts.values()) - len(counts)
    if repeated < FEWEST or repeated <= TOO_MANY * len(trained) / 2:
        return
    count = f"{repeated} of {len(trained)} trials repeat a configuration"
    redraw = "Leave out duplicates: train. " if evidence.study.duplicates == "train" else ""
    yield Finding(
        check="duplicates",
        says=f"{count} that was trained already, with the same seed: nothing new could come of them.",
        do=f"{redraw}There are {len(counts)} different ones; a larger space, or a smaller budget, loses nothing.",
        short=f"{count} trained already",
    )
