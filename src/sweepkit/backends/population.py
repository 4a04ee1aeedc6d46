"""Population-based training (Jaderberg et al. 2017), with the options and defaults of Ray Tune's, on every backend.

At a meeting the worst members take over weights and values of the best, and change the values: each is drawn again, or moved a
step. What was decided follows from the meeting and the study's seed alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from random import Random
from typing import Any

from sweepkit.study.parameters import Choice
from sweepkit.study.space import dimensions, trial_seed
from sweepkit.study.study import StudyData
from sweepkit.trial.trial import Turn


class PopulationBasedTraining:
    """A :class:`sweepkit.backends.Scheduler`; values in ``fixed`` stay as they were sampled, and go along with weights."""

    def __init__(self, study: StudyData) -> None:
        given = study.pruner.options
        self._seed = study.sampler.seed
        self._score = study.objective.key_of
        fixed = given.get("fixed", [])
        self._changing = {d.name: d.parameter for d in dimensions(study.space).values() if d.name not in fixed}
        self._share: float = given.get("quantile_fraction", 0.25)
        self._redraw: float = given.get("resample_probability", 0.25)
        self._factors: list[float] = given.get("perturbation_factors", [1.2, 0.8])

    def decide(self, members: Mapping[int, Turn]) -> Mapping[int, Turn]:
        """Return how each member continues."""
        order = sorted(members, key=lambda number: (self._score(members[number].value), -number))
        count = min(math.ceil(self._share * len(order)), len(order) // 2)
        worst, best = order[:count], order[len(order) - count :]
        dice = Random(trial_seed(self._seed, min(turn.evaluation for turn in members.values())))
        found = dict(members)
        for number in sorted(worst):
            donor = dice.choice(sorted(best))
            values = {**members[donor].hyperparameters}
            values |= {name: self._moved(name, values[name], dice) for name in self._changing if name in values}
            found[number] = replace(members[number], hyperparameters=values, donor=donor)
        return found

    def _moved(self, name: str, value: Any, dice: Random) -> Any:
        parameter: Any = self._changing[name]
        if dice.random() < self._redraw:
            drawn = parameter.random(dice)
            return parameter.value(drawn) if isinstance(parameter, Choice) else drawn
        if isinstance(parameter, Choice):
            choices = list(parameter.choices)
            return choices[min(max(choices.index(value) + dice.choice((-1, 1)), 0), len(choices) - 1)]
        moved = min(max(value * dice.choice(self._factors), parameter.low), parameter.high)
        return parameter.at(parameter.share(moved))
