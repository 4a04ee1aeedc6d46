"""A Gaussian process over (configuration, progress of training): what a trial is worth at the end of its training.

The covariance of two evaluations is the sum of a Matérn-5/2 over the configurations, with a length for every parameter
(Rasmussen and Williams 2006, eq. 4.17), times a squared exponential over progress; a term of their own for the evaluations
of one trial, exp(−Δτ/ℓ), as curves leave the common surface and stay off it (Swersky, Snoek and Adams 2014); a trend ττ′
along training; what earlier studies expect of the configuration, by a weight that is learned (a linear term, eq. 2.42); and
noise. Values are replaced by the normal scores of their ranks, so that neither an outlier nor the
metric's unit matters. The hyperparameters are the maximum a posteriori.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.special import log_ndtr, ndtr, ndtri
from scipy.stats import rankdata

Array = NDArray[np.float64]

ITERATIONS = 40
"""Steps of the fit, which starts from the priors' medians, so that it is a function of its arguments alone."""
_PRIOR = {"surface": (1.0, 0.7), "own": (0.1, 1.0), "trend": (0.3, 1.0), "noise": (0.003, 1.0)}
_PRIOR |= {"progress": (1.0, 0.5), "staying": (1.0, 0.7)}
"""Name → median and standard deviation of the logarithm. The first four are variances, the others lengths."""
WEIGHT = (0.5, 0.5)
"""Of what earlier studies expect: the mean and the standard deviation before anything was seen."""
_SPREAD = 0.8
"""The same standard deviation for the length of a parameter; its median grows with the root of their number."""


@dataclass(frozen=True)
class Points:
    """Evaluations, measured or asked for: a row each."""

    places: Array
    """Configurations in the unit cube; a choice has a column for every label."""
    progress: Array
    """0 before training, 1 at its end."""
    trials: NDArray[np.int64]
    """The trial's number; different negative ones for configurations that were not started."""
    expected: Array
    """The score that earlier studies expect of the configuration; 0 where they say nothing."""

    def __getitem__(self, rows: slice | NDArray[np.int64] | NDArray[np.bool_]) -> Points:
        return Points(self.places[rows], self.progress[rows], self.trials[rows], self.expected[rows])

    def __add__(self, other: Points) -> Points:
        return Points(
            np.concatenate([self.places, other.places]),
            np.concatenate([self.progress, other.progress]),
            np.concatenate([self.trials, other.trials]),
            np.concatenate([self.expected, other.expected]),
        )

    @property
    def hints(self) -> Array:
        """What the weight of the earlier studies multiplies: the less of a training is seen, the less they say."""
        found: Array = self.expected * self.progress
        return found

    def __len__(self) -> int:
        return len(self.progress)


def scores(values: Array) -> Array:
    """Return the normal scores of values by their ranks; equal values have equal scores, and NaN ranks lowest.

    >>> scores(np.array([3.0, 1.0, np.nan])).round(2).tolist()
    [0.97, 0.0, -0.97]
    """
    ranks = rankdata(np.nan_to_num(values, nan=-np.inf), method="average")
    found: Array = ndtri((ranks - 0.5) / len(values))
    return found


def log_expected_improvement(mean: Array, deviation: Array, best: float) -> Array:
    """Return the logarithm of how much a normal variable is expected to exceed ``best``, accurate far below it, too.

    With z = (mean − best)/σ it is log σ + log(φ(z) + zΦ(z)) (Ament et al. 2023).
    """
    z = np.clip((mean - best) / deviation, -1e4, None)
    log_density = -0.5 * z**2 - 0.5 * np.log(2 * np.pi)
    near = np.log(np.maximum(np.exp(log_density) + z * ndtr(z), 1e-300))
    far = log_density + np.log1p(np.maximum(z * np.exp(np.minimum(log_ndtr(z) - log_density, 700.0)), -1 + 1e-9))
    found: Array = np.log(deviation) + np.where(z > -4, near, far)
    return found


class CurveModel:
    """The process given ``values`` at ``points``; ``groups`` is the parameter that each column of the places belongs to.

    The hyperparameters are those of an earlier model (``fitted``), or are fitted to the rows ``fit_to``, by default all.
    """

    def __init__(
        self,
        points: Points,
        values: Array,
        groups: Sequence[int],
        *,
        fitted: Array | None = None,
        fit_to: NDArray[np.int64] | slice = slice(None),
    ) -> None:
        self._points = points
        self._groups = np.asarray(groups)
        count = int(self._groups.max()) + 1
        medians = [0.5 * np.sqrt(count / 4)] * count + [median for median, _ in _PRIOR.values()]
        self._centre = np.log(medians)
        self._spread = np.array([_SPREAD] * count + [spread for _, spread in _PRIOR.values()])
        self.fitted = (
            self._fit(points[fit_to], (values - WEIGHT[0] * points.hints)[fit_to]) if fitted is None else fitted
        )
        """The logarithms of the hyperparameters."""
        self._lower = cholesky(self._covariance(points, points) + self._noise(len(points)), lower=True)
        self._weights: Array = cho_solve((self._lower, True), values - WEIGHT[0] * points.hints)

    def predict(self, asked: Points) -> tuple[Array, Array]:
        """Return the mean and the standard deviation of each value asked for, without noise."""
        across = self._covariance(self._points, asked)
        half = solve_triangular(self._lower, across, lower=True)
        surface, own, trend = np.exp(self.fitted[-6:-3])
        variance = surface + own + trend * asked.progress**2 + (WEIGHT[1] * asked.hints) ** 2 - (half**2).sum(axis=0)
        return across.T @ self._weights + WEIGHT[0] * asked.hints, np.sqrt(np.maximum(variance, 1e-9))

    def _noise(self, count: int) -> Array:
        found: Array = (np.exp(self.fitted[-3]) + 1e-6) * np.eye(count)
        return found

    def _distances(self, a: Points, b: Points) -> Array:
        """Return the squared distances in each parameter."""
        found = np.zeros((int(self._groups.max()) + 1, len(a), len(b)))
        for column, group in enumerate(self._groups):
            found[group] += (a.places[:, column, None] - b.places[None, :, column]) ** 2
        return found

    def _covariance(self, a: Points, b: Points) -> Array:
        *lengths, surface, own, trend, _, progress, staying = np.exp(self.fitted)
        scaled = np.sqrt(5 * np.tensordot(np.array(lengths) ** -2, self._distances(a, b), 1))
        apart = np.abs(a.progress[:, None] - b.progress[None, :])
        common = surface * (1 + scaled + scaled**2 / 3) * np.exp(-scaled - 0.5 * (apart / progress) ** 2)
        same = a.trials[:, None] == b.trials[None, :]
        found: Array = common + own * same * np.exp(-apart / staying) + trend * np.outer(a.progress, b.progress)
        return found + WEIGHT[1] ** 2 * np.outer(a.hints, b.hints)

    def _fit(self, points: Points, values: Array) -> Array:
        """Return the maximum a posteriori; the gradient is Rasmussen and Williams' eq. 5.9."""
        count = len(points)
        distances = self._distances(points, points)
        apart = np.abs(points.progress[:, None] - points.progress[None, :])
        same = (points.trials[:, None] == points.trials[None, :]).astype(float)
        product = np.outer(points.progress, points.progress)
        hinted = WEIGHT[1] ** 2 * np.outer(points.hints, points.hints)

        def loss(logs: Array) -> tuple[float, Array]:
            *lengths, surface, own, trend, noise, progress, staying = np.exp(logs)
            weights = np.array(lengths) ** -2
            scaled = np.sqrt(5 * np.tensordot(weights, distances, 1))
            decay = surface * np.exp(-scaled - 0.5 * (apart / progress) ** 2)
            common = decay * (1 + scaled + scaled**2 / 3)
            stays = own * same * np.exp(-apart / staying)
            whole = common + stays + trend * product + hinted
            whole[np.diag_indices(count)] += noise + 1e-6
            lower = cholesky(whole, lower=True)
            inverse = cho_solve((lower, True), np.eye(count))
            solved = inverse @ values
            slope = 0.5 * (inverse - np.outer(solved, solved))
            bend = slope * decay * (5 / 3) * (1 + scaled)
            gradient = [*(weights * np.tensordot(distances, bend, 2))]
            gradient += [(slope * common).sum(), (slope * stays).sum(), trend * (slope * product).sum()]
            gradient += [noise * np.trace(slope), (slope * common * (apart / progress) ** 2).sum()]
            gradient += [(slope * stays * apart / staying).sum()]
            away = (logs - self._centre) / self._spread
            value = 0.5 * values @ solved + np.log(np.diag(lower)).sum() + 0.5 * (away**2).sum()
            return float(value), np.array(gradient) + away / self._spread

        bounds = [(each - 3.0, each + 3.0) for each in self._centre]
        found = minimize(
            loss, self._centre, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": ITERATIONS}
        )
        best: Array = found.x
        return best
