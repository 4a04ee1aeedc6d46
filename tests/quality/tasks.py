"""What the bench searches: measured learning curves, surrogates of them, and a made-up family that needs no data.

A task has a space as a study file writes it, a baseline, and the curve of every configuration; lower is better everywhere.
Regret is (value − best) / (median − best), where best and median are of the final losses of all measured configurations, or
of 2,000 random ones where a surrogate is searched.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sweepkit.study.parameters import Domain
from sweepkit.study.space import dimensions
from sweepkit.study.study import StudyData

LCBENCH = ("3945", "7593", "126026", "167149", "168330")
"""The data sets of LCBench to develop with."""
EPOCHS = 52
Point = Mapping[str, Any]


class Task:
    """One task, evaluated ``evaluations`` times a trial at equal distances."""

    name: str
    space: dict[str, Any]
    baseline: dict[str, Any]
    steps: int
    """Length of a measured curve."""
    fitted = True
    """Whether every configuration has a curve."""

    def __init__(self, evaluations: int) -> None:
        self.evaluations = evaluations

    def losses(self, points: list[Point]) -> np.ndarray[Any, Any]:
        """Return the whole curve of each configuration, a row each; NaN or infinite where it diverges."""
        raise NotImplementedError

    def finals(self, points: list[Point]) -> np.ndarray[Any, Any]:
        """Return the final loss of each configuration."""
        return self.losses(points)[:, -1]

    def curve(self, point: Point) -> list[float]:
        """Return the losses of one configuration at the evaluations."""
        at = np.linspace(0, self.steps, self.evaluations + 1).round().astype(int)[1:] - 1
        return [float(loss) for loss in self.losses([point])[0][at]]

    @cached_property
    def scale(self) -> tuple[float, float]:
        """Best and median final loss."""
        rng = np.random.default_rng(0)
        final = self.finals([self.random(rng) for _ in range(2000)])
        final = final[np.isfinite(final)]
        return float(final.min()), float(np.median(final))

    def regret(self, loss: float) -> float:
        """Return the regret of a final loss."""
        best, median = self.scale
        return (loss - best) / (median - best)

    @cached_property
    def domains(self) -> dict[str, Domain]:
        """Name → parameter."""
        data = {"name": "t", "task": {"path": "t.py:T"}, "objective": {"metric": "loss", "direction": "minimize"}}
        study = StudyData.model_validate({**data, "space": self.space})
        return {key: dimension.parameter for key, dimension in dimensions(study.space).items()}

    def random(self, rng: np.random.Generator) -> Point:
        """Return a random configuration."""
        return {name: domain.at(rng.random()) for name, domain in self.domains.items()}

    def shares(self, points: list[Point]) -> np.ndarray[Any, Any]:
        """Return the configurations as points in the unit cube."""
        table = [[domain.share(point[name]) for name, domain in self.domains.items()] for point in points]
        return np.array(table, dtype=float)


def _log(low: float, high: float) -> dict[str, Any]:
    return {"low": low, "high": high, "log": True}


class TaskSet(Task):
    """A text task of TaskSet: 1,000 measured configurations of Adam. The betas are searched as one minus beta."""

    space = {
        "learning_rate": _log(1e-8, 10.0),
        "one_minus_beta1": _log(1e-4, 1.0),
        "one_minus_beta2": _log(1e-6, 1.0),
        "epsilon": _log(1e-10, 1e3),
        "l1": _log(1e-8, 10.0),
        "l2": _log(1e-8, 10.0),
        "linear_decay": _log(1e-7, 1e-4),
        "exponential_decay": _log(1e-6, 1e-3),
    }
    adam = dict(zip(space, (1e-3, 0.1, 1e-3, 1e-8, 1e-8, 1e-8, 1e-7, 1e-6), strict=True))
    steps = 50
    fitted = False

    def __init__(self, path: Path, evaluations: int) -> None:
        super().__init__(evaluations)
        self.name = path.stem.removeprefix("taskset-")
        data = np.load(path)
        values = data["hyperparameters"].copy()
        values[:, 1:3] = 1 - values[:, 1:3]
        low = [each["low"] for each in self.space.values()]
        high = [each["high"] for each in self.space.values()]
        self.points: list[Point] = [
            dict(zip(self.space, map(float, row), strict=True)) for row in np.clip(values, low, high)
        ]
        self.measured = data["valid"][:, 1:].astype(float)
        self.places = self.shares(self.points)
        self._row = {tuple(point.values()): row for row, point in enumerate(self.points)}
        nearest = np.linalg.norm(self.places - self.shares([self.adam])[0], axis=1).argmin()
        self.baseline = dict(self.points[nearest])

    @cached_property
    def scale(self) -> tuple[float, float]:
        """Best and median final loss of the measured configurations."""
        final = self.measured[:, -1][np.isfinite(self.measured[:, -1])]
        return float(final.min()), float(np.median(final))

    def losses(self, points: list[Point]) -> np.ndarray[Any, Any]:
        """Return the measured curves; the configurations must be measured ones."""
        return self.measured[[self._row[tuple(point[name] for name in self.space)] for point in points]]


class FittedTaskSet(TaskSet):
    """A random forest of a task's curves, so that any configuration has one."""

    def __init__(self, path: Path, evaluations: int) -> None:
        from sklearn.ensemble import ExtraTreesRegressor

        super().__init__(path, evaluations)
        self.name += " (fitted)"
        self.baseline = dict(self.adam)
        worst = float(np.nanquantile(self.measured[np.isfinite(self.measured)], 0.95))
        curves = np.log(np.clip(np.nan_to_num(self.measured, nan=worst, posinf=worst), 1e-9, worst))
        self._forest = ExtraTreesRegressor(60, min_samples_leaf=2, random_state=0).fit(self.places, curves)

    fitted = True
    scale = Task.scale

    def losses(self, points: list[Point]) -> np.ndarray[Any, Any]:
        """Return the forest's curves."""
        return np.exp(self._forest.predict(self.shares(points)))


class LCBench(Task):
    """A data set of LCBench, by the surrogate of YAHPO: 52 epochs of a neural network on a table; one minus its accuracy."""

    steps = EPOCHS
    order = ("batch_size", "learning_rate", "momentum", "weight_decay", "num_layers", "max_units", "max_dropout")

    def __init__(self, folder: Path, dataset: str, evaluations: int) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise SystemExit("lcbench: the surrogate needs onnxruntime: pip install onnxruntime") from None
        super().__init__(evaluations)
        self.name = f"lcbench-{dataset}"
        found = json.loads((folder / "lcbench-space.json").read_text())["hyperparameters"]
        known = {each["name"]: each for each in found}
        self.space = {
            name: {"low": known[name]["lower"], "high": known[name]["upper"], "log": known[name]["log"]}
            for name in self.order
        }
        self.baseline = {name: known[name]["default"] for name in self.order}
        codes = json.loads((folder / "lcbench-encoding.json").read_text())
        self._code = codes["OpenML_task_id"][dataset]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._model = onnxruntime.InferenceSession(folder / "lcbench.onnx", options)

    def losses(self, points: list[Point]) -> np.ndarray[Any, Any]:
        """Return one minus the validation accuracy at every epoch."""
        return self._losses(points, range(1, EPOCHS + 1))

    def finals(self, points: list[Point]) -> np.ndarray[Any, Any]:
        """Return one minus the validation accuracy at the last epoch."""
        return self._losses(points, (EPOCHS,))[:, 0]

    def _losses(self, points: list[Point], epochs: Sequence[int]) -> np.ndarray[Any, Any]:
        rows = [[epoch, *(point[name] for name in self.order)] for point in points for epoch in epochs]
        given = {"x_cat": np.full((len(rows), 1), self._code, np.int32), "x_cont": np.array(rows, np.float32)}
        accuracy = self._model.run(None, given)[0][:, 1]
        return 1 - accuracy.reshape(len(points), len(epochs)) / 100


class MadeUp(Task):
    """A power law whose asymptote, speed and start depend on five parameters, one of them a choice; ``seed`` moves the optimum.

    A learning rate too high diverges, and fast starters end worse, so that pruning at the first evaluation misleads.
    """

    space = {
        "learning_rate": _log(1e-5, 1e-1),
        "weight_decay": _log(1e-6, 1e-1),
        "dropout": {"low": 0.0, "high": 0.6},
        "layers": {"low": 1, "high": 8},
        "optimizer": {"choices": ["sgd", "adam", "lion"]},
    }
    baseline = {"learning_rate": 1e-3, "weight_decay": 1e-3, "dropout": 0.1, "layers": 2, "optimizer": "sgd"}
    steps = 50

    def __init__(self, seed: int, evaluations: int) -> None:
        super().__init__(evaluations)
        self.name = f"made-up-{seed}"
        rng = np.random.default_rng(seed)
        self._optimum = rng.uniform(0.2, 0.8, 4)
        self._weights = rng.uniform(0.5, 2.0, 4)
        self._offsets = dict(zip(("sgd", "adam", "lion"), rng.permutation([0.0, 0.1, 0.2]), strict=True))

    def losses(self, points: list[Point]) -> np.ndarray[Any, Any]:
        """Return the curves."""
        places = self.shares(points)[:, :4]
        away = ((places - self._optimum) ** 2 * self._weights).sum(axis=1)
        end = 0.2 + np.minimum(away, 1.0) + [self._offsets[point["optimizer"]] for point in points]
        speed = 0.4 + places[:, :1] * 1.2
        time = np.arange(1, self.steps + 1)[None, :]
        curves = end[:, None] + (1.5 - end[:, None]) * time**-speed
        curves[places[:, 0] > self._optimum[0] + 0.35, 10:] = np.nan
        return curves


class Plateau(MadeUp):
    """Curves at the level of chance, which one configuration in six leaves, and none before a tenth of its training."""

    def losses(self, points: list[Point]) -> np.ndarray[Any, Any]:
        """Return the curves."""
        places = self.shares(points)[:, :4]
        away = np.abs(places - self._optimum)[:, :2].max(axis=1)[:, None]
        time = np.arange(1, self.steps + 1)[None, :]
        chance = 0.693 + 0.08 * np.exp(-time * (0.3 + places[:, 3:])) + 1e-4 * places[:, 2:3]
        learned = 0.2 * np.clip(1 - away / 0.2, 0, 1)
        return chance - learned * np.clip((time - 4) / 40, 0, 1)


class Late(MadeUp):
    """The made-up curves, flat in their first two fifths."""

    def losses(self, points: list[Point]) -> np.ndarray[Any, Any]:
        """Return the curves."""
        ends, flat = super().losses(points)[:, -1:], 0.9 + 0.02 * self.shares(points)[:, 3:4]
        time = np.arange(1, self.steps + 1)[None, :] / self.steps - 0.4
        return ends + (flat - ends) * np.exp(-10.0 * np.maximum(time, 0.0))


def tasks(folder: Path | None, names: list[str], evaluations: int) -> Iterator[Task]:
    """Yield the tasks of the families named: ``taskset``, ``fitted``, ``lcbench`` and ``made-up``; ``folder`` has the data."""
    for family in names:
        if family == "made-up":
            yield from (MadeUp(seed, evaluations) for seed in range(4))
        elif folder is None or not folder.is_dir():
            raise SystemExit(f"{family}: no measured curves in {folder}; --data PATH says where they are")
        elif family == "lcbench":
            yield from (LCBench(folder, dataset, evaluations) for dataset in LCBENCH)
        else:
            kind = {"taskset": TaskSet, "fitted": FittedTaskSet}[family]
            yield from (kind(path, evaluations) for path in sorted(folder.glob("taskset-*.npz")))
