"""Text classification: one label per text or pair of texts. Knows no search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sweepkit.tasks import models
from sweepkit.tasks.rows import encode_labels
from sweepkit.tasks.text import TextTask

if TYPE_CHECKING:
    from datasets import DatasetDict
    from transformers import PreTrainedModel


class TextClassification(TextTask):
    """One label per text (or pair of texts); labels may be words or numbers, their names go into the model."""

    metrics: list[str | dict[str, dict[str, Any]]] = ["accuracy", "f1"]
    """Metrics by name; f1, precision and recall are binary for two classes (of the second one), else macro."""

    def data(self) -> DatasetDict:
        """Return the tokenised splits; ``labels`` is a ClassLabel."""
        rows, _ = encode_labels(self._rows())
        return self._tokenised(self._split(rows, stratify="labels"))

    def model_init(self, **config: Any) -> PreTrainedModel:
        """Return the model with a fresh head for the data's classes."""
        from transformers import AutoModelForSequenceClassification

        head = models.classes(self.splits["train"].features["labels"].names)
        overrides = {**head, **self._padding(), **config}
        return models.model(
            AutoModelForSequenceClassification,
            self.model,
            self.home,
            overrides,
            trust_remote_code=self.trust_remote_code,
        )
