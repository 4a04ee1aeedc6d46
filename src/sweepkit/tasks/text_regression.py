"""Regression on text: one number per text or pair of texts. Knows no search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sweepkit.study.errors import InputError
from sweepkit.tasks import ALWAYS_REPORTED, models
from sweepkit.tasks.text import TextTask

if TYPE_CHECKING:
    from datasets import DatasetDict
    from transformers import EvalPrediction, PreTrainedModel


class TextRegression(TextTask):
    """One number per text (or pair of texts), learnt with the mean squared error."""

    metrics: list[str | dict[str, dict[str, Any]]] = ["rmse", "pearsonr"]
    """Metrics by the names `evaluate` knows, in the units of the data."""
    normalize: bool = False
    """Learn labels with the training rows' mean taken off and divided by their deviation; metrics stay in the units of
    the data, ``eval_loss`` does not."""

    def data(self) -> DatasetDict:
        """Return the tokenised splits; with ``normalize``, ``target`` keeps the labels as they were."""
        from datasets import Value

        rows = self._rows()
        for split, part in rows.items():
            if not all(isinstance(value, (int, float)) and np.isfinite(value) for value in part["labels"]):
                found = next(v for v in part["labels"] if not (isinstance(v, (int, float)) and np.isfinite(v)))
                raise InputError(f"task.label: {split} holds {found!r}; regression needs finite numbers")
        rows = self._tokenised(self._split(rows.cast_column("labels", Value("float32")), stratify=None))
        if not self.normalize:
            return rows
        mean, deviation = _scale(rows["train"]["labels"])
        return rows.map(
            lambda batch: {"target": batch["labels"], "labels": [(v - mean) / deviation for v in batch["labels"]]},
            batched=True,
        ).cast_column("labels", Value("float32"))

    def model_init(self, **config: Any) -> PreTrainedModel:
        """Return the model with a fresh head of one output."""
        from transformers import AutoModelForSequenceClassification

        overrides = {"num_labels": 1, "problem_type": "regression", **self._padding(), **config}
        return models.model(
            AutoModelForSequenceClassification,
            self.model,
            self.home,
            overrides,
            trust_remote_code=self.trust_remote_code,
        )

    def compute_metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        """Return the metrics in the units of the data."""
        if not self.normalize:
            return super().compute_metrics(prediction)
        from transformers import EvalPrediction

        mean, deviation = _scale(self.splits["train"]["target"])
        outputs = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
        labels = np.asarray(prediction.label_ids)
        return super().compute_metrics(EvalPrediction(outputs * deviation + mean, labels * deviation + mean))

    def reported(self) -> frozenset[str] | None:
        """Return the loss and the bundled metrics; None when one of ``metrics`` is not bundled."""
        keys = self._keys(self.metrics)
        return None if keys is None else ALWAYS_REPORTED | keys


def _scale(labels: Any) -> tuple[float, float]:
    """Mean and deviation (1 for a constant)."""
    values = np.asarray(labels, dtype=np.float64)
    return float(values.mean()), float(values.std()) or 1.0
