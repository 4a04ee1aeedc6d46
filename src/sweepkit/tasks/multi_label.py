"""Multi-label classification: any number of labels per text or pair of texts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from sweepkit.study.errors import InputError
from sweepkit.tasks import labels, models
from sweepkit.tasks.data import Column
from sweepkit.tasks.shapes import CLASS, Role, of_texts
from sweepkit.tasks.task import Template
from sweepkit.tasks.text import TextTask

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from transformers import PreTrainedModel

_FLAGS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}


class MultiLabelClassification(TextTask):
    """Any number of labels per text or pair of texts; each is decided on its own, by a threshold of 0 on its logit."""

    template: ClassVar[Template | None] = Template(
        metric="f1_micro",
        data="columns text and label; label holds a list of labels per row, or a text such as red|blue",
        shapes=of_texts(
            Role(("label labels", "tags categories topics genres emotions", *CLASS.names[1:]), "labels", by_value=True)
        ),
    )
    pipeline_tag: ClassVar[str | None] = "text-classification"

    metrics: list[str | dict[str, dict[str, Any]]] = ["f1_micro", "f1_macro", "accuracy"]
    """Metrics by name; ``accuracy`` is the share of rows with every label right, f1, precision and recall are macro
    averages unless told otherwise (``{precision: {average: micro}}``)."""
    label: Annotated[str | list[str], Column(label=True)] = "label"
    """Column with a row's list of labels, or with a text of several labels (see ``label_separator``), or a list of columns,
    one per label, that hold 0 and 1."""
    label_separator: str | None = None
    """What separates the labels in a text: ``;`` reads ``sport; politics`` as two; an empty text has none."""

    def data(self) -> DatasetDict:
        """Return the tokenised splits: ``classes`` are the labels' ids (ClassLabels), ``labels`` 0.0 or 1.0 for each class."""
        from datasets import List, Value

        if isinstance(self.label, list):
            rows = self._rows({f"labels:{name}": name for name in self.label})
        else:
            rows = self._rows({"labels": self.label})
        for split, part in rows.items():
            rows[split] = self._listed(part, split)
        rows, names = labels.encode_lists(self._complete(rows))
        rows = self._tokenized(self._split(rows)).rename_column("labels", "classes")
        features = {**rows["train"].features, "labels": List(Value("float32"))}

        def mark(batch: dict[str, list[Any]]) -> dict[str, list[list[float]]]:
            return {"labels": [[float(number in set(ids)) for number in range(len(names))] for ids in batch["classes"]]}

        return rows.map(mark, batched=True, features=type(rows["train"].features)(features))

    def data_notes(self) -> list[str]:
        """Return how many rows have no label, and what is unusual about the classes of the splits."""
        empty = {split: sum(not each for each in part["classes"]) for split, part in self.splits.items()}
        found = [
            f"{count} of {len(self.splits[split])} rows of {split} have none of the labels"
            for split, count in empty.items()
            if count
        ]
        return [*found, *labels.notes(self.splits, "classes", "labels")]

    def model_init(self, **config: Any) -> PreTrainedModel:
        """Return the model with a head for the data's classes: the checkpoint's own where it has as many, else a new one."""
        names = self.splits["train"].features["classes"].feature.names
        return self._classifier(models.classes(names, "multi_label_classification"), config)

    def _listed(self, part: Dataset, split: str) -> Dataset:
        """Return a split with a list of labels per row in ``labels``; None where a row has none of the columns."""
        from datasets import ClassLabel, List, Value

        if isinstance(self.label, list):
            rows = list(self._marked(part, split))
            kept = part.remove_columns([f"labels:{name}" for name in self.label])
            return kept.add_column("labels", rows, feature=List(ClassLabel(names=self.label)))
        feature = part.features["labels"]
        if not isinstance(feature, Value):
            _refuse_flags(part, split)
            return part
        texts = part["labels"]
        if all(text is None for text in texts):
            return part
        if self.label_separator is None:
            raise InputError(
                f"task.label: expected a list of labels per row, got {texts[0]!r} in row 1 of {split}; set "
                "task.label_separator to what separates labels in a text, or list columns of 0 and 1 in task.label; "
                "for one label per row use type: text-classification"
            )
        found = [
            [name for each in (text or "").split(self.label_separator) if (name := each.strip())] for text in texts
        ]
        return part.remove_columns(["labels"]).add_column("labels", found, feature=List(Value("string")))

    def _marked(self, part: Dataset, split: str) -> Iterator[list[int] | None]:
        """Yield the numbers of the columns that hold 1 in each row."""
        columns = [part[f"labels:{name}"] for name in self.label]
        for row, values in enumerate(zip(*columns, strict=True), 1):
            if all(value is None for value in values):
                yield None
                continue
            flags = [_FLAGS.get(str(value).strip().lower()) for value in values]
            if None in flags:
                column = flags.index(None)
                raise InputError(
                    f"task.label: {self.label[column]} is {values[column]!r} in row {row} of {split}; a column per label "
                    "holds 0 and 1"
                )
            yield [number for number, flag in enumerate(flags) if flag]


def _refuse_flags(part: Dataset, split: str) -> None:
    """Raise InputError where lists of 0 and 1 must be flags, not names."""
    from datasets import ClassLabel

    rows = part["labels"]
    lengths = {len(row) for row in rows if row is not None}
    named = isinstance(getattr(part.features["labels"], "feature", None), ClassLabel)
    if (
        not named
        and len(lengths) == 1
        and max(lengths) > 1
        and {str(value) for row in rows for value in row or ()} <= {*_FLAGS}
    ):
        raise InputError(
            f"task.label: every row of {split} holds {max(lengths)} values that are 0 or 1, got {rows[0]} in row 1; "
            "write the names of a row's labels, or a column per label"
        )
