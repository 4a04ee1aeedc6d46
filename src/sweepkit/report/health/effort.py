"""Checks on what was spent: the search, or the training, ended while it was still getting better. Knows no page."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from sweepkit.report.evidence import Evidence
from sweepkit.report.health.finding import Finding
from sweepkit.study import words

LATE = 0.2
"""The last part of the trials: an improvement there means that the search was still finding."""
ENOUGH = 10
"""With fewer trials than this every improvement is late."""
WORTH_SAYING = 0.1
"""Part of the distance from a middling trial to the best that an improvement must have to be worth a word."""
RISING = 0.05
"""Part of a curve's whole rise that its last evaluation must add for the curve to be rising still."""
LOOKED_AT = 3
"""So many of the best trials are asked whether they were still learning."""


def search_still_improving(evidence: Evidence) -> Iterator[Finding]:
    """The budget ended while trials were still getting better."""
    best, able = evidence.best, evidence.answer.ranked
    if best is None or evidence.running or len(evidence.ended) < ENOUGH or len(able) < ENOUGH // 2:
        return
    late = sorted(row.number for row in evidence.ended)[-max(2, round(LATE * len(evidence.ended))) :]
    before = next((row for row in able if row.number < late[0]), None)
    if before is None or best.number < late[0]:
        return
    middling = statistics.median(row.values[0] for row in able)
    gained = evidence.better(best.values[0], before.values[0])
    if gained < WORTH_SAYING * evidence.better(best.values[0], middling) or gained <= 0:
        return
    trials = evidence.study.budget.trials
    more = f"budget: {{trials: {round(1.5 * max(trials, len(evidence.ended)))}}}" if trials else "a larger budget"
    yield Finding(
        check="search_still_improving",
        says=f"The search was still improving when it ended: the last {len(late)} trials bettered {evidence.goal.metric} "
        f"from {words.value(before.values[0])} to {words.value(best.values[0])}.",
        do=f"Go on with the same command and {more}; what there is stays.",
        short=f"still improving when the budget ended ({words.value(before.values[0])} to {words.value(best.values[0])})",
    )


def training_still_improving(evidence: Evidence) -> Iterator[Finding]:
    """The best trials were still learning at their last step."""
    if len(evidence.study.objective.goals) > 1:
        return
    top = evidence.answer.ranked[:LOOKED_AT]
    rising = [row for row in top if _rising(evidence, [value for _, value in evidence.curve(row)])]
    if not rising or rising[0] is not top[0] or 2 * len(rising) <= len(top):
        return
    curve = [value for _, value in evidence.curve(top[0])]
    length = next((name for name in ("max_steps", "num_train_epochs") if name in evidence.study.training), None)
    now = evidence.study.training[length] if length else 3
    named = length or "num_train_epochs"
    longer = f"{named}: {words.setting(2 * now)}" if isinstance(now, (int, float)) and now > 0 else named
    yield Finding(
        check="training_still_improving",
        says=f"Trial {top[0].number}, the best, was still improving at its last evaluation ({words.value(curve[-2])} to "
        f"{words.value(curve[-1])}): it was cut off, not done.",
        do=f"Train longer, for example {longer} under training, as a new study or with --fresh.",
        short=f"the best trial was still improving at its last evaluation; train longer ({longer})",
    )


def _rising(evidence: Evidence, curve: list[float]) -> bool:
    if len(curve) < 3:
        return False
    before = max(curve[:-1]) if evidence.maximize else min(curve[:-1])
    return evidence.better(curve[-1], before) > RISING * abs(evidence.better(curve[-1], curve[0]))
