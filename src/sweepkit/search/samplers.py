"""Optuna's samplers and distributions for a study, and samplers of our own: a grid, a resumable sequence, what lies near.

Every trial gets a new sampler, seeded from the study's seed and the trial's number, so that its proposal depends on the
stored trials alone and not on what happened in this process before.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial

from sweepkit.study.errors import InputError
from sweepkit.study.parameters import Choice, Float, Int, Scalar
from sweepkit.study.samplers import allow_experimental
from sweepkit.study.space import Dimension, draw, trial_seed
from sweepkit.study.study import StudyData

GRID_LIMIT = 100_000
"""Maximum number of combinations of a grid."""


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Suppress Optuna's warnings about experimental features, infinite values and few trials."""
    with allow_experimental():
        # An infeasible trial before any other has an infinite value; GP clips it, with a warning each time.
        warnings.filterwarnings("ignore", message="Clip non-finite values", category=UserWarning)
        # A GP that has converged: the probabilities of improvement are all 0, and are divided by their sum.
        warnings.filterwarnings("ignore", message="invalid value encountered in divide", category=RuntimeWarning)
        # Importances from few trials; the report states how many there were.
        few = "Target and region quantiles|Some regimes for parameter"
        warnings.filterwarnings("ignore", message=few, category=UserWarning)
        yield


def distribution(parameter: Float | Int | Choice) -> BaseDistribution:
    """Return the parameter's domain as Optuna's distribution."""
    if isinstance(parameter, Choice):
        return CategoricalDistribution(parameter.labels)
    if isinstance(parameter, Int):
        return IntDistribution(parameter.low, parameter.values[-1], log=parameter.log, step=parameter.step)
    values = parameter.values
    if values is None:
        return FloatDistribution(parameter.low, parameter.high, log=parameter.log)
    return FloatDistribution(parameter.low, values[-1], step=parameter.step)


def make_sampler(
    study: StudyData, number: int, *, point: int = 0, grid: Sequence[Mapping[str, Scalar]] | None = None
) -> BaseSampler:
    """Return the sampler of one trial.

    ``point`` is the position in the sequence of qmc and grid; ``grid`` has the combinations, if already computed. Raises
    InputError for options that Optuna rejects.
    """
    kind, options = study.sampler.kind, study.sampler.options
    if kind.enumerates:
        return Grid(combinations(study) if grid is None else grid, point=point)
    seed = study.sampler.seed if kind.sequence else trial_seed(study.sampler.seed, number)
    try:
        sampler = kind.make(options, seed)
    except (TypeError, ValueError) as error:
        raise InputError(f"sampler {study.sampler.title}: {error}") from None
    return Quasi(sampler, point=point) if kind.sequence else sampler


def combinations(study: StudyData) -> list[dict[str, Scalar]]:
    """Return every combination of the space once, in an order shuffled by the seed.

    Raises InputError for a parameter with infinitely many values and for more than GRID_LIMIT combinations.
    """
    found: list[dict[str, Scalar]] = []
    digits: list[int] = []
    while True:
        sizes: list[int] = []
        chosen: dict[str, Scalar] = {}

        def suggest(dimension: Dimension, sizes: list[int] = sizes, chosen: dict[str, Scalar] = chosen) -> Scalar:
            if dimension.key not in chosen:
                options = _values(dimension)
                if len(digits) == len(sizes):
                    digits.append(0)
                chosen[dimension.key] = options[digits[len(sizes)]]
                sizes.append(len(options))
            return chosen[dimension.key]

        draw(study.space, suggest)
        found.append(chosen)
        if len(found) > GRID_LIMIT:
            raise InputError(f"sampler grid: more than {GRID_LIMIT:,} combinations; use qmc or random, or fewer values")
        while digits and digits[-1] == sizes[len(digits) - 1] - 1:
            digits.pop()
        if not digits:
            break
        digits[-1] += 1
    random.Random(study.sampler.seed).shuffle(found)
    return found


def _values(dimension: Dimension) -> Sequence[Scalar]:
    values = dimension.parameter.values
    if values is None:
        raise InputError(
            f"sampler grid: {dimension.path} needs a step or choices, so that its values can be enumerated"
        )
    return values


class Grid(BaseSampler):
    """Proposes every combination once, then nothing.

    Optuna's GridSampler does not support conditional parameters, and its BruteForceSampler no constraints.
    """

    def __init__(self, grid: Sequence[Mapping[str, Scalar]], *, point: int) -> None:
        self._grid = grid
        self.point = point

    @property
    def remaining(self) -> bool:
        """Whether there is a next combination."""
        return self.point < len(self._grid)

    def end(self) -> None:
        """Leave out what remains."""
        self.point = len(self._grid)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return nothing: the combinations define the space."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the next combination; nothing after the last one."""
        self.point += 1
        return dict(self._grid[self.point - 1]) if self.point <= len(self._grid) else {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Never called: a combination has a value for every parameter."""
        raise NotImplementedError


class Quasi(BaseSampler):
    """Optuna's quasi-random sequence, starting at a given point.

    Optuna stores the position in the study, and a driver killed before it stored the trial would skip a point. Here the
    position is stored with the trial, and Optuna gets a temporary study to store its own in.
    """

    def __init__(self, sampler: BaseSampler, *, point: int) -> None:
        self._sampler = sampler
        self.point = point

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return nothing: the caller passes the space."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the next point."""
        if not search_space:
            return {}
        storage = InMemoryStorage()
        scratch = optuna.create_study(storage=storage, study_name="scratch")
        scratch_id = storage.get_study_id_from_name("scratch")
        sample = self._sampler.sample_relative(scratch, trial, search_space)
        if self.point:
            for key in storage.get_study_system_attrs(scratch_id):
                storage.set_study_system_attr(scratch_id, key, self.point - 1)
            sample = self._sampler.sample_relative(scratch, trial, search_space)
        self.point += 1
        return sample

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return a random value, for parameters outside of the sequence."""
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)


class Nearby(BaseSampler):
    """Draws a configuration near ``centre`` (key → label); a parameter that the centre lacks is drawn uniformly.

    Every other parameter stays; the rest move by a tenth of their range, or to another choice.
    """

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self.centre: Mapping[str, Any] = {}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return nothing: parameters are drawn one by one."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return a label."""
        here, label = param_name in self.centre, self.centre.get(param_name)
        stays = here and self._dice.random() < 0.5
        if isinstance(param_distribution, CategoricalDistribution):
            choices = param_distribution.choices
            return label if stays and label in choices else self._dice.choice(choices)
        assert isinstance(param_distribution, (FloatDistribution, IntDistribution))
        share = share_of(param_distribution, label) if here else self._dice.random()
        moved = share if stays or not here else share + self._dice.gauss(0, 0.1)
        return _at(param_distribution, min(max(moved, 0.0), 1.0))


def share_of(distribution: FloatDistribution | IntDistribution, label: Any) -> float:
    """Return a number's position in its range (0: low, 1: high), in the logarithm with ``log``."""
    low, high, value = distribution.low, distribution.high, label
    if distribution.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low) if high > low else 0.5


def _at(distribution: FloatDistribution | IntDistribution, share: float) -> float:
    low, high = distribution.low, distribution.high
    value = low * (high / low) ** share if distribution.log else low + share * (high - low)
    if distribution.step is not None and not distribution.log:
        value = low + round((value - low) / distribution.step) * distribution.step
    value = min(max(value, low), high)
    return round(value) if isinstance(distribution, IntDistribution) else value
