"""Tasks that read one text, or a pair of texts, per row: classification and regression."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, PrivateAttr

from sweepkit.study.errors import InputError
from sweepkit.tasks import labels, models
from sweepkit.tasks.data import DataSpec, choose, complete, limit, pair, read, with_validation
from sweepkit.tasks.models import ModelRef
from sweepkit.tasks.task import ALWAYS_REPORTED, Task, Template

if TYPE_CHECKING:
    from datasets import DatasetDict
    from transformers import EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase


class TextTask(Task):
    """A task that reads one text, or a pair of texts, per row."""

    peft_task_type: ClassVar[str | None] = "SEQ_CLS"

    model: ModelRef
    """Hub id, folder, ``package:NAME/sub/folder``, or ``{config: {model_type: …}, tokenizer: …}`` (random weights)."""
    source: DataSpec = Field(alias="data")
    """Where the rows come from."""
    text: str | list[str] = "text"
    """Column with the text, or a list of two columns that are read as a pair (premise and hypothesis)."""
    label: str = "label"
    """Column with what is to be predicted."""
    max_length: int | None = Field(default=None, ge=2)
    """Longest input in tokens, the rest is cut off; by default what the model can read."""
    train_samples: int | None = Field(default=None, ge=1)
    """At most this many training rows, drawn with ``split_seed``."""
    eval_samples: int | None = Field(default=None, ge=1)
    """At most this many validation rows (and test rows), drawn with ``split_seed``."""
    validation: float = Field(default=0.2, gt=0, lt=1)
    """Fraction of the training rows set aside where the data has no validation split; the same rows in every trial."""
    split_seed: int = 0
    """Seed of that split and of the limits; it is not the trial's seed, so that all trials see the same rows."""

    _tokenizer: PreTrainedTokenizerBase | None = PrivateAttr(default=None)

    def _rows(self) -> DatasetDict:
        """The rows with columns text (text_pair) and labels, checked, before splitting."""
        columns = pair(self.text)
        if len(columns) != (1 if isinstance(self.text, str) else len(self.text)):
            raise InputError(f"task.text: one column or a list of two, got {self.text}")
        used = {**columns, "labels": self.label}
        rows = choose(read(self.source, self.home, used.values()), used)
        return complete(rows, label="labels", drop_duplicates=self.source.drop_duplicates)

    def _split(self, rows: DatasetDict, *, stratify: str | None) -> DatasetDict:
        """The rows with a validation split, limited to the numbers asked for."""
        split = with_validation(rows, self.validation, self.split_seed, stratify=stratify)
        limits = {"train": self.train_samples, "validation": self.eval_samples, "test": self.eval_samples}
        return limit(split, limits, self.split_seed)

    def _tokenised(self, rows: DatasetDict) -> DatasetDict:
        """The rows as token ids, cut off at ``max_length``."""
        tokenizer = self.processing_class()
        config = models.configuration(self.model, self.home, trust_remote_code=self.trust_remote_code)
        possible = models.longest(config, tokenizer)
        if self.max_length is not None and possible is not None and self.max_length > possible:
            raise InputError(f"task.max_length: the model reads at most {possible} tokens, got {self.max_length}")
        length = self.max_length or possible

        def tokens(batch: dict[str, list[Any]]) -> Any:
            pairs = [[str(text) for text in batch[name]] for name in ("text", "text_pair") if name in batch]
            return tokenizer(*pairs, truncation=length is not None, max_length=length)

        texts = [name for name in rows["train"].column_names if name in ("text", "text_pair")]
        return rows.map(tokens, batched=True, remove_columns=texts)

    def processing_class(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer."""
        if self._tokenizer is None:
            self._tokenizer = models.tokenizer(self.model, self.home, trust_remote_code=self.trust_remote_code)
        return self._tokenizer

    def data_collator(self) -> Any:
        """Pad each batch to its own longest row."""
        from transformers import DataCollatorWithPadding

        return DataCollatorWithPadding(self.processing_class())

    def inputs(self) -> list[Path]:
        """Return the data files and, of a local model, the files that make its tokenizer."""
        return [*self.source.local_files(self.home), *models.local_files(self.model, self.home)]

    def _padding(self) -> dict[str, Any]:
        """The configuration's padding token, where the tokenizer had to borrow one."""
        config = models.configuration(self.model, self.home, trust_remote_code=self.trust_remote_code)
        if getattr(config, "pad_token_id", None) is not None:
            return {}
        return {"pad_token_id": self.processing_class().pad_token_id}


class TextClassification(TextTask):
    """One label per text (or pair of texts); labels may be words or numbers, their names go into the model."""

    template: ClassVar[Template | None] = Template(
        metric="accuracy", data="columns text and label; labels may be words"
    )
    pipeline_tag: ClassVar[str | None] = "text-classification"

    metrics: list[str | dict[str, dict[str, Any]]] = ["accuracy", "f1"]
    """Metrics by name; f1, precision and recall are binary for two classes (of the second one), else macro."""

    def data(self) -> DatasetDict:
        """Return the tokenised splits; ``labels`` is a ClassLabel."""
        rows, _ = labels.encode_labels(self._rows())
        return self._tokenised(self._split(rows, stratify="labels"))

    def data_notes(self) -> list[str]:
        """Return what is unusual about the classes of the splits."""
        return labels.notes(self.splits)

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


class TextRegression(TextTask):
    """One number per text (or pair of texts), learnt with the mean squared error."""

    template: ClassVar[Template | None] = Template(metric="mse", data="columns text and label; labels are numbers")

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
            numbers = part.add_column("numbers", _numbers(part["labels"], split))
            rows[split] = numbers.remove_columns(["labels"]).rename_column("numbers", "labels")
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
        import numpy as np
        from transformers import EvalPrediction

        mean, deviation = _scale(self.splits["train"]["target"])
        outputs = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
        labels = np.asarray(prediction.label_ids)
        return super().compute_metrics(EvalPrediction(outputs * deviation + mean, labels * deviation + mean))

    def reported(self) -> frozenset[str] | None:
        """Return the loss and the bundled metrics; None when one of ``metrics`` is not bundled."""
        keys = self._keys(self.metrics)
        return None if keys is None else ALWAYS_REPORTED | keys


def _numbers(labels: Iterable[Any], split: str) -> list[float]:
    """The labels of one split as numbers. Raises InputError naming the first row that holds none."""
    numbers = []
    for row, label in enumerate(labels, 1):
        try:
            numbers.append(float(label))
        except (TypeError, ValueError):
            numbers.append(math.nan)
        if not math.isfinite(numbers[-1]) or isinstance(label, bool):
            raise InputError(f"task.label: row {row} of {split} holds {label!r}; regression needs finite numbers")
    return numbers


def _scale(labels: Any) -> tuple[float, float]:
    """Mean and deviation (1 for a constant)."""
    import numpy as np

    values = np.asarray(labels, dtype=np.float64)
    return float(values.mean()), float(values.std()) or 1.0
