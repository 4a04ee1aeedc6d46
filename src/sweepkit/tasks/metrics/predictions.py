"""What a model put out → what a metric compares. Knows no metric and no task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

IGNORED = -100
"""Label that transformers' losses leave out."""


@dataclass(frozen=True)
class Decided:
    """Predictions and references, one entry each per label; ``classes`` is None where nothing was decided."""

    predictions: NDArray[Any]
    references: NDArray[Any]
    classes: int | None


def decide(outputs: Any, labels: Any) -> Decided:
    """Return class numbers for logits, numbers for a single output; labels of -100 are left out, axes flattened.

    Of a tuple of outputs the first counts, as with the Trainer's own models.

    >>> decided = decide(np.array([[0.1, 2.0], [3.0, 0.0]]), np.array([1, 0]))
    >>> decided.predictions.tolist(), decided.classes
    ([1, 0], 2)
    """
    scores = np.asarray(outputs[0] if isinstance(outputs, tuple) else outputs)
    references = np.asarray(labels[0] if isinstance(labels, tuple) else labels)
    classes: int | None = None
    if scores.ndim == references.ndim + 1:
        if scores.shape[-1] == 1:
            scores = scores[..., 0]
        else:
            classes = int(scores.shape[-1])
            scores = scores.argmax(axis=-1)
    if scores.shape != references.shape:
        raise ValueError(
            f"predictions of shape {scores.shape} do not fit labels of shape {references.shape}; "
            "override compute_metrics to say what they mean"
        )
    counts = references != IGNORED if np.issubdtype(references.dtype, np.integer) else np.ones(references.shape, bool)
    return Decided(scores[counts], references[counts], classes)


def negative_log_likelihoods(outputs: Any, labels: Any) -> NDArray[Any]:
    """Return -log p(label) for every label that counts; with an axis of places, logits speak of the next place's label.

    >>> negative_log_likelihoods(np.zeros((1, 3, 4)), np.array([[0, 1, 2]])).round(3).tolist()
    [1.386, 1.386]
    """
    scores = np.asarray(outputs[0] if isinstance(outputs, tuple) else outputs, dtype=np.float64)
    references = np.asarray(labels)
    if scores.ndim != references.ndim + 1:
        raise ValueError(f"perplexity needs logits, got shape {scores.shape} for labels of {references.shape}")
    if scores.ndim > 2:
        scores, references = scores[..., :-1, :], references[..., 1:]
    counts = references != IGNORED
    scores, references = scores[counts], references[counts]
    highest = scores.max(axis=-1)
    total = highest + np.log(np.exp(scores - highest[:, None]).sum(axis=-1))
    found: NDArray[Any] = total - np.take_along_axis(scores, references[:, None], axis=-1)[:, 0]
    return found
