"""Tasks that read one text, or a pair of texts, per row: classification and regression."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from sweepkit.study.errors import InputError
from sweepkit.tasks import labels, models
from sweepkit.tasks.built_in import TokenizedTask, Without
from sweepkit.tasks.data import Column, read
from sweepkit.tasks.metrics import Decided
from sweepkit.tasks.rows import as_text, choose, complete, pair
from sweepkit.tasks.shapes import CLASS, NUMBER, of_texts
from sweepkit.tasks.splitting import with_validation
from sweepkit.tasks.task import Template

if TYPE_CHECKING:
    from datasets import DatasetDict
    from transformers import EvalPrediction, PreTrainedModel


class TextTask(TokenizedTask):
    """A task that reads one text, or a pair of texts, per row."""

    peft_task_type: ClassVar[str | None] = "SEQ_CLS"

    text: Annotated[str | list[str], Column()] = "text"
    """Column with the text, or a list of two columns that form a pair (premise and hypothesis)."""
    max_length: int | None = Field(default=None, ge=2)
    """Maximum input length in tokens, longer texts are truncated; by default the model's own limit."""

    def _rows(self, labels: Mapping[str, str]) -> DatasetDict:
        """Return the rows with columns text (text_pair) and those of ``labels``, new name → column, before splitting."""
        columns = pair(self.text)
        if len(columns) != (1 if isinstance(self.text, str) else len(self.text)):
            raise InputError(f"task.text: expected one column or a list of two, got {self.text}")
        used = {**columns, **labels}
        return as_text(choose(read(self.source, self.home, used.values()), used, labels), columns)

    def _complete(self, rows: DatasetDict) -> DatasetDict:
        """Return the rows if none lacks a text or its ``labels``."""
        return complete(rows, label="labels", drop_duplicates=self.source.drop_duplicates)

    def _split(self, rows: DatasetDict, *, stratify: str | None = None) -> DatasetDict:
        """Return the rows with a validation split, limited."""
        return self._limited(with_validation(rows, self.validation, self.split_seed, stratify=stratify))

    def _tokenized(self, rows: DatasetDict) -> DatasetDict:
        """Return the rows as token ids, truncated to ``max_length``."""
        tokenizer, length = self.processing_class(), self._within("max_length")
        texts = [name for name in rows["train"].column_names if name in ("text", "text_pair")]

        def tokenize(batch: dict[str, list[Any]]) -> Any:
            columns = [[str(text) for text in batch[name]] for name in sorted(texts)]
            return tokenizer(*columns, truncation=length is not None, max_length=length)

        return rows.map(tokenize, batched=True, remove_columns=texts)

    def data_collator(self) -> Any:
        """Return a collator that pads each batch to its longest row."""
        from transformers import DataCollatorWithPadding

        return Without(("classes", "target"), DataCollatorWithPadding(self.processing_class()))

    def _classifier(self, head: dict[str, Any], config: dict[str, Any]) -> PreTrainedModel:
        """Return the model with this head, and the tokenizer's padding token where it has none."""
        from transformers import AutoModelForSequenceClassification

        if getattr(self._configuration(), "pad_token_id", None) is None:
            head = {**head, "pad_token_id": self.processing_class().pad_token_id}
        return self._model(AutoModelForSequenceClassification, {**head, **config})


class TextClassification(TextTask):
    """One label per text or pair of texts; labels may be words or numbers, and become the model's class names."""

    template: ClassVar[Template | None] = Template(
        metric="accuracy", data="columns text and label; labels may be words", shapes=of_texts(CLASS)
    )
    pipeline_tag: ClassVar[str | None] = "text-classification"

    metrics: list[str | dict[str, dict[str, Any]]] = ["accuracy", "f1"]
    """Metrics by name; f1, precision and recall are binary (of the second class) for two classes, else macro."""
    label: Annotated[str, Column(label=True)] = "label"
    """Column with the class, words or numbers."""

    def data(self) -> DatasetDict:
        """Return the tokenised splits; ``labels`` is a ClassLabel."""
        rows, _ = labels.encode_labels(self._complete(self._rows({"labels": self.label})))
        return self._tokenized(self._split(rows, stratify="labels"))

    def data_notes(self) -> list[str]:
        """Return what is unusual about the classes of the splits."""
        return labels.notes(self.splits)

    def model_init(self, **config: Any) -> PreTrainedModel:
        """Return the model with a head for the data's classes: the checkpoint's own where it has as many, else a new one."""
        return self._classifier(models.classes(self.splits["train"].features["labels"].names), config)


class TextRegression(TextTask):
    """One number per text or pair of texts, trained with the mean squared error."""

    template: ClassVar[Template | None] = Template(
        metric="mse",
        data="columns text and label; labels are numbers",
        options={"normalize": True},
        shapes=of_texts(NUMBER),
    )

    metrics: list[str | dict[str, dict[str, Any]]] = ["rmse", "pearsonr"]
    """Metrics by name, in the units of the data."""
    label: Annotated[str, Column(label=True)] = "label"
    """Column with the number to predict."""
    normalize: bool = False
    """Standardize the labels with the mean and standard deviation of the training rows. Metrics stay in the units of the
    data; ``eval_loss`` does not."""

    def data(self) -> DatasetDict:
        """Return the tokenised splits; with ``normalize``, ``target`` holds the original labels."""
        from datasets import Value

        rows = self._complete(self._rows({"labels": self.label}))
        for split, part in rows.items():
            numbers = part.add_column("numbers", _numbers(part["labels"], split))
            rows[split] = numbers.remove_columns(["labels"]).rename_column("numbers", "labels")
        rows = self._tokenized(self._split(rows.cast_column("labels", Value("float32"))))
        if not self.normalize:
            return rows
        mean, deviation = _scale(rows["train"]["labels"])
        return rows.map(
            lambda batch: {"target": batch["labels"], "labels": [(v - mean) / deviation for v in batch["labels"]]},
            batched=True,
        ).cast_column("labels", Value("float32"))

    def model_init(self, **config: Any) -> PreTrainedModel:
        """Return the model with a head of one output: the checkpoint's own where it has one, else a new one."""
        return self._classifier({"num_labels": 1, "problem_type": "regression"}, config)

    def decide(self, prediction: EvalPrediction) -> Decided:
        """Return the numbers in the units of the data."""
        if not self.normalize:
            return super().decide(prediction)
        import numpy as np
        from transformers import EvalPrediction

        mean, deviation = _scale(self.splits["train"]["target"])
        outputs = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
        labels = np.asarray(prediction.label_ids)
        return super().decide(EvalPrediction(outputs * deviation + mean, labels * deviation + mean))


def _numbers(labels: Iterable[Any], split: str) -> list[float]:
    """Return the labels of a split as numbers. Raises InputError naming the first row that holds none."""
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
    """Return mean and standard deviation, 1 for a constant."""
    import numpy as np

    values = np.asarray(labels, dtype=np.float64)
    return float(values.mean()), float(values.std()) or 1.0
