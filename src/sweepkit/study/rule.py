"""The rule that turns a trial's evaluations into its value; shared by pruner, ranking and checkpoints. Knows no storage.

``best`` is the evaluation with the best deciding metric (``prune_on``, else the first goal), and with several goals all
values come from that one evaluation; ``last`` is the last evaluation; ``mean(k)`` is the mean of the last k, goal by goal.
NaN is worse than any number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from sweepkit.study.study import Objective

Values = Sequence[float]


class ValueRule:
    """One objective's rule. Evaluations are the goals' values, in the goals' order, oldest evaluation first.

    >>> rule = ValueRule(Objective(metric="eval_loss", direction="minimize"))
    >>> rule.value([[0.5], [0.3], [0.4]]), rule.improves([[0.5], [0.3], [0.4]])
    ((0.3,), False)
    """

    def __init__(self, objective: Objective) -> None:
        metrics = [goal.metric for goal in objective.goals]
        self._kind = objective.value
        self._mean_of = objective.mean_of
        self.deciding = metrics.index(objective.prune_on) if objective.prune_on is not None else 0
        """Index of the goal that decides which evaluation, trial or checkpoint is better."""
        self._sign = 1.0 if objective.goals[self.deciding].direction == "maximize" else -1.0

    def value(self, evaluations: Sequence[Values]) -> tuple[float, ...]:
        """Return the values of a trial with these evaluations; empty when there are none."""
        if not evaluations:
            return ()
        if self._mean_of is not None:
            last = evaluations[-self._mean_of :]
            return tuple(math.fsum(values) / len(last) for values in zip(*last, strict=True))
        return tuple(evaluations[self.decisive(evaluations)])

    def decisive(self, evaluations: Sequence[Values]) -> int:
        """Return the index of the evaluation whose model and metrics stand for the trial; the last one for ``mean(k)``."""
        if self._kind != "best":
            return len(evaluations) - 1
        found = 0
        for index, values in enumerate(evaluations):
            if self.better(values, evaluations[found]):
                found = index
        return found

    def improves(self, evaluations: Sequence[Values]) -> bool:
        """Whether the newest evaluation's model is the one to keep as the trial's best checkpoint."""
        return bool(evaluations) and self.decisive(evaluations) == len(evaluations) - 1

    def better(self, left: Values, right: Values) -> bool:
        """Whether ``left`` is strictly better than ``right`` in the deciding goal."""
        return self.key(left) > self.key(right)

    def key(self, values: Values) -> float:
        """Return a sort key for values: higher is better, NaN is below everything."""
        return self.key_of(values[self.deciding])

    def key_of(self, value: float) -> float:
        """Return the sort key of a value of the deciding goal."""
        return -math.inf if math.isnan(value) else self._sign * value
