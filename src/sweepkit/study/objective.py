"""The objective: its metrics, and the rule that turns evaluations into a trial's value."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from sweepkit.study.parameters import Section

Direction = Literal["maximize", "minimize"]


COSTS = ("train_runtime", "peak_memory_mb", "trainable_parameters")
"""Goals that no evaluation reports: each trial measures them."""


class _Directed(Section):
    @model_validator(mode="before")
    @classmethod
    def _costs_are_minimized(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("metric") in COSTS and data.get("direction") is None:
            return {**data, "direction": "minimize"}
        return data


class Goal(_Directed):
    """One metric to optimise."""

    metric: str = Field(examples=["eval_loss", *COSTS])
    """Name as the Trainer reports it, for example ``eval_accuracy`` or ``eval_loss``; or a cost of the whole training,
    up to the last evaluation and over all attempts it continued: ``train_runtime`` (seconds, evaluations included),
    ``peak_memory_mb`` (allocated on the GPU that had most, on a CPU resident in the process; of several ranks the most) or
    ``trainable_parameters``."""
    direction: Direction
    """``maximize`` or ``minimize``. Costs are minimized by default; else there is none: a wrong one would ruin a study."""

    model_config = ConfigDict(json_schema_extra={"required": ["metric"]})

    @property
    def title(self) -> str:
        """The metric and which way is better, for example ``eval_f1 ↑``."""
        return f"{self.metric} {'↑' if self.direction == 'maximize' else '↓'}"


class Objective(_Directed):
    """The rule that turns a trial's evaluations into one value, or several.

    ``best`` is the evaluation that is best in the deciding goal (``prune_on``, else the first), and all values are that
    evaluation's; ``mean(k)`` averages each goal by itself. NaN is worse than any number. Costs are always those of the last
    evaluation, and where one decides, so are all values.

    Its methods take an evaluation as the values of the goals, in their order, and evaluations oldest first.

    >>> objective = Objective(metric="eval_loss", direction="minimize")
    >>> objective.values_of([[0.5], [0.3], [0.4]]), objective.improves([[0.5], [0.3], [0.4]])
    ((0.3,), False)
    """

    metric: str | None = Field(default=None, examples=["eval_loss", *COSTS])
    """Name as the Trainer reports it, for example ``eval_accuracy`` or ``eval_loss``; or a cost of the whole training:
    ``train_runtime``, ``peak_memory_mb`` or ``trainable_parameters``, explained with ``metrics``."""
    direction: Direction | None = None
    """``maximize`` or ``minimize``. Costs are minimized by default; else there is none: a wrong one would ruin a study."""
    value: str = "best"
    """The trial's value: ``best`` evaluation, ``last`` evaluation, or ``mean(k)`` of the last k. Pruner, ranking, kept
    checkpoint and MLflow all use it."""
    metrics: list[Goal] | None = None
    """Several goals in place of metric and direction; the study's answer is then a Pareto front."""
    prune_on: str | None = None
    """With several goals: the metric that the pruner uses; required with a pruner."""
    nan: Literal["diverged", "ignore"] = "diverged"
    """What a NaN or infinite training loss means: ``diverged`` ends the trial at once, ``ignore`` trains on."""

    @model_validator(mode="after")
    def _complete(self) -> Objective:
        if self.metrics is not None:
            if self.metric is not None or self.direction is not None:
                raise ValueError("metrics (several goals) and metric/direction (one goal) exclude each other")
            if len({goal.metric for goal in self.metrics}) != len(self.metrics) or len(self.metrics) < 2:
                raise ValueError("metrics needs at least two goals with different metrics")
            if self.prune_on is not None and self.prune_on not in {goal.metric for goal in self.metrics}:
                raise ValueError(f"prune_on must be one of the metrics, got {self.prune_on}")
        else:
            if self.metric is None:
                raise ValueError("metric is needed, for example metric: eval_accuracy")
            if self.direction is None:
                raise ValueError("direction is needed: maximize or minimize")
            if self.prune_on is not None:
                raise ValueError("prune_on belongs to studies with several metrics; with one metric leave it out")
        return self

    @field_validator("value")
    @classmethod
    def _rule(cls, value: str) -> str:
        if not re.fullmatch(r"best|last|mean\([1-9][0-9]*\)", value):
            raise ValueError(f"must be best, last or mean(k) with k of 1 or more, got {value}")
        return value

    @property
    def goals(self) -> tuple[Goal, ...]:
        """All goals, in order; one for a plain study."""
        if self.metrics is not None:
            return tuple(self.metrics)
        assert self.metric is not None and self.direction is not None
        return (Goal(metric=self.metric, direction=self.direction),)

    @property
    def rule(self) -> str:
        """``value``, or ``last`` where a cost decides."""
        metric = self.metric if self.metrics is None else self.metrics[self.deciding].metric
        return "last" if metric in COSTS else self.value

    @property
    def mean_of(self) -> int | None:
        """k of ``mean(k)``, else None."""
        match = re.fullmatch(r"mean\((\d+)\)", self.rule)
        return int(match.group(1)) if match else None

    @property
    def deciding(self) -> int:
        """Index of the goal that decides which evaluation, trial or checkpoint is better."""
        return 0 if self.prune_on is None else [goal.metric for goal in self.goals].index(self.prune_on)

    def values_of(self, evaluations: Sequence[Sequence[float]]) -> tuple[float, ...]:
        """Return the values of a trial with these evaluations; empty without any."""
        if not evaluations:
            return ()
        found = list(evaluations[self.decisive(evaluations)])
        if self.mean_of is not None:
            last = evaluations[-self.mean_of :]
            found = [_mean(values) for values in zip(*last, strict=True)]
        costs = [goal.metric in COSTS for goal in self.goals]
        return tuple(value if cost else own for cost, value, own in zip(costs, evaluations[-1], found, strict=True))

    def course(self, evaluated: Mapping[int, float]) -> dict[int, float]:
        """Return the deciding goal's value by the rule after each evaluation; ``evaluated``: number → its own value.

        >>> Objective(metric="eval_loss", direction="minimize").course({1: 0.5, 2: 0.3, 3: 0.4})
        {1: 0.5, 2: 0.3, 3: 0.3}
        """
        found: dict[int, float] = {}
        values: list[float] = []
        rule, mean_of = self.rule, self.mean_of
        for number, value in sorted(evaluated.items()):
            values.append(value)
            if mean_of is not None:
                value = _mean(values[-mean_of:])
            elif rule == "best" and found:
                value = max(found[max(found)], value, key=self.key_of)
            found[number] = value
        return found

    def decisive(self, evaluations: Sequence[Sequence[float]]) -> int:
        """Return the index of the evaluation whose model and metrics are the trial's; the last one for ``mean(k)``."""
        if self.rule != "best":
            return len(evaluations) - 1
        return max(range(len(evaluations)), key=lambda index: (self.key(evaluations[index]), -index))

    def improves(self, evaluations: Sequence[Sequence[float]]) -> bool:
        """Return whether the newest evaluation's model is now the trial's best checkpoint."""
        return bool(evaluations) and self.decisive(evaluations) == len(evaluations) - 1

    def key(self, values: Sequence[float]) -> float:
        """Return a sort key for values: higher is better, NaN is lowest."""
        return self.key_of(values[self.deciding])

    def key_of(self, value: float) -> float:
        """Return the sort key of a value of the deciding goal."""
        if math.isnan(value):
            return -math.inf
        direction = self.direction if self.metrics is None else self.metrics[self.deciding].direction
        return value if direction == "maximize" else -value


def _mean(values: Sequence[float]) -> float:
    """Return the mean; NaN for infinite values of both signs, which have none."""
    try:
        return math.fsum(values) / len(values)
    except OverflowError:  # of the sum
        return math.fsum(value / len(values) for value in values)
    except ValueError:
        return math.nan
