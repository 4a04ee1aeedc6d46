"""Our words for samplers and pruners made into Optuna's objects. Knows no trial and keeps no state.

A sampler is made anew for every trial, seeded from the study's seed and the trial's number, so that what it proposes
follows from the stored trials alone and not from the life of a process. What Optuna marks experimental is used knowingly:
its warnings are silenced here and nowhere else.
"""

from __future__ import annotations

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
from sweepkit.study.samplers import experimental
from sweepkit.study.space import Dimension, draw, trial_seed
from sweepkit.study.study import StudyData

GRID_LIMIT = 100_000
"""So many combinations a grid may have."""


@contextmanager
def knowingly() -> Iterator[None]:
    """Use what Optuna marks experimental, and infinite values, without being warned of it."""
    with experimental():
        # An infeasible trial has the worst value there can be while there is no other; GP clips it, and says so each time.
        warnings.filterwarnings("ignore", message="Clip non-finite values", category=UserWarning)
        # GP once it has converged: no point but the best has any chance, and the chances are divided by their sum.
        warnings.filterwarnings("ignore", message="invalid value encountered in divide", category=RuntimeWarning)
        # Importances of few trials; the report says how many there were.
        few = "Target and region quantiles|Some regimes for parameter"
        warnings.filterwarnings("ignore", message=few, category=UserWarning)
        yield


def distribution(parameter: Float | Int | Choice) -> BaseDistribution:
    """Return Optuna's word for a parameter's domain."""
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

    ``point`` is where qmc and grid stand in their sequence; ``grid`` are the combinations, where they were made before.
    Raises InputError for options Optuna refuses.
    """
    kind, options = study.sampler.kind, study.sampler.options
    if kind.enumerates:
        return Grid(combinations(study) if grid is None else grid, point=point)
    seed = study.sampler.seed if kind.sequence else trial_seed(study.sampler.seed, number)
    try:
        sampler = kind.make(options, seed)
    except (TypeError, ValueError) as error:
        raise InputError(f"sampler {study.sampler.type}: {error}") from None
    return Quasi(sampler, point=point) if kind.sequence else sampler


def combinations(study: StudyData) -> list[dict[str, Scalar]]:
    """Return every combination of the space, branches included, each once, in an order that the seed shuffles.

    Raises InputError for a parameter without steps and for more than GRID_LIMIT combinations.
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
        raise InputError(f"sampler grid: {dimension.path} needs a step or choices, for a grid counts its values")
    return values


class Grid(BaseSampler):
    """Every combination once. Optuna's own grid knows no conditional parameters, its brute force no constraints.

    Returns nothing once all combinations are used up.
    """

    def __init__(self, grid: Sequence[Mapping[str, Scalar]], *, point: int) -> None:
        self._grid = grid
        self.point = point

    @property
    def remaining(self) -> bool:
        """Whether there is a next combination."""
        return self.point < len(self._grid)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return nothing: the combinations say what there is."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the next combination."""
        self.point += 1
        return dict(self._grid[self.point - 1]) if self.point <= len(self._grid) else {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Never called: a combination is whole."""
        raise NotImplementedError


class Quasi(BaseSampler):
    """Optuna's quasi-random sequence, read at a given point.

    Optuna counts the points in the study, and a driver killed between counting and storing the trial would skip one. Here
    the count is the trial's, and Optuna counts in a study of its own that is thrown away.
    """

    def __init__(self, sampler: BaseSampler, *, point: int) -> None:
        self._sampler = sampler
        self.point = point

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return nothing: the caller knows the space."""
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
        """Return a random value (single-valued parameters have no place in the sequence)."""
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)
