"""Ray Tune's population-based bandits, asked who copies whose weights.

Tune's scheduler decides over its own Trial objects and a controller that runs them. It gets trials that only stand for
ours and a controller that only lists them; all members meet at once, as with ``synch=True`` in Tune.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy
from ray.tune.experiment import Trial
from ray.tune.schedulers.pb2 import PB2

from sweepkit.backends.ray import private
from sweepkit.study.space import dimensions, trial_seed
from sweepkit.study.study import StudyData
from sweepkit.trial.trial import Turn


class TuneScheduler:
    """Tune's PB2 with the study's options; a :class:`sweepkit.backends.Scheduler`.

    Chance is drawn from the study's seed and the evaluation, so that a meeting that is held again decides the same. PB2
    searches a parameter with ``log`` by its logarithm.
    """

    def __init__(self, study: StudyData) -> None:
        self._seed = study.sampler.seed
        self._score = study.objective.key_of
        self._space: dict[str, Any] = {d.name: d.parameter for d in dimensions(study.space).values()}
        settings = {"time_attr": "evaluation", "metric": "score", "mode": "max", "synch": True, "log_config": False}
        options: dict[str, Any] = {"perturbation_interval": 1, **settings, **study.pruner.options}
        bounds: dict[str, Any] = {n: [self._inner(n, p.low), self._inner(n, p.high)] for n, p in self._space.items()}
        self._tune: Any = PB2(**options, hyperparam_bounds=bounds)
        self._trials: dict[int, Any] = {}

    def decide(self, members: Mapping[int, Turn]) -> Mapping[int, Turn]:
        """Return how each member continues."""
        for number in sorted(members.keys() - self._trials.keys()):
            self._trials[number] = trial = Trial("member", trial_id=f"{number:05d}", stub=True)
            trial.config = self._config(members[number])
            self._tune.on_trial_add(SimpleNamespace(search_alg=None), trial)
        here = {number: self._trials[number] for number in sorted(members)}
        for number, trial in self._trials.items():
            trial.set_status(Trial.PAUSED if number in here else Trial.TERMINATED)
        for number, trial in here.items():
            trial.set_config(self._config(members[number]))
            # Tune passes a donor's checkpoint on without looking into it; here it is the donor's number.
            private.set_checkpoint(trial, SimpleNamespace(checkpoint=[number], metrics={}))
        trials = list(here.values())
        controller = SimpleNamespace(get_trials=lambda: trials, get_live_trials=lambda: trials)
        evaluation = min(turn.evaluation for turn in members.values())
        with _chance(trial_seed(self._seed, evaluation)):
            for number, trial in here.items():
                result = {"evaluation": evaluation, "score": self._score(members[number].value)}
                self._tune.on_trial_result(controller, trial, result)
        return {number: self._decided(number, trial, members[number]) for number, trial in here.items()}

    def _decided(self, number: int, trial: Any, member: Turn) -> Turn:
        (donor,) = trial.checkpoint
        if donor == number:
            return member
        values = {name: self._outer(name, value) for name, value in trial.config.items()}
        return replace(member, hyperparameters=values, donor=donor)

    def _config(self, member: Turn) -> dict[str, Any]:
        return {name: self._inner(name, value) for name, value in member.hyperparameters.items()}

    def _inner(self, name: str, value: Any) -> Any:
        return math.log(value) if self._space[name].log else value

    def _outer(self, name: str, value: Any) -> Any:
        """Return a value as it is trained: within the space, on its steps."""
        parameter = self._space[name]
        value = math.exp(value) if parameter.log else value
        return parameter.at(min(1.0, parameter.share(value)))


@contextmanager
def _chance(seed: int) -> Iterator[None]:
    """Let Tune, which draws from the process's own generators, draw from a seed, and put them back.

    PB2's Gaussian process warns where it does not converge; what it proposes then is still within the space.
    """
    before = random.getstate(), numpy.random.get_state()
    random.seed(seed)
    numpy.random.seed(seed)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(before[0])
        numpy.random.set_state(before[1])
