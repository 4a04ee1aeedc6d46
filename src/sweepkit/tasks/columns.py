"""Tasks whose columns say what is trained: one of several formats, each row of which is checked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import field_validator

from sweepkit.study.errors import InputError
from sweepkit.tasks.built_in import BuiltInTask
from sweepkit.tasks.data import read
from sweepkit.tasks.rows import choose, complete
from sweepkit.tasks.splitting import with_validation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from datasets import DatasetDict


HEAD = 100
"""Rows of a stream that tell the types of its columns."""


class ColumnsTask(BuiltInTask):
    """A built-in task that reads one of several formats, each known by its columns."""

    formats: ClassVar[tuple[tuple[str, ...], ...]]
    """The columns of each format; where the data has those of several, the first counts."""
    optional: ClassVar[tuple[str, ...]] = ()
    """Further columns that are kept where the data has them."""
    streams: ClassVar[bool] = True

    columns: dict[str, str] = {}
    """Columns of the data that are named differently from the task's: ``{prompt: question, completion: answer}``."""

    @field_validator("metrics")
    @classmethod
    def _reported_only(cls, metrics: list[Any]) -> list[Any]:
        own = cls.model_fields["metrics"].default
        if strange := [entry for entry in metrics if entry not in own]:
            raise ValueError(f"its Trainer reports {', '.join(own)} and no other metric, got {strange[0]}")
        return metrics

    def unfit(self, names: Collection[str]) -> str:
        """Return why data with these columns cannot be used, or nothing."""
        kinds = " or ".join(", ".join(format_) for format_ in self.formats)
        known = {*self.optional, *(name for format_ in self.formats for name in format_)}
        if strange := [name for name in self.columns if name not in known]:
            return f"{strange[0]} in task.columns is none of the task's columns, which are {kinds}"
        if gone := [name for name in self.columns.values() if name not in names]:
            return f"there is no column {gone[0]}, which task.columns names; there are {', '.join(names)}"
        if self._format(names):
            return ""
        return f"the columns are {', '.join(names)}; needed are {kinds} (others are named by task.columns)"

    def data(self) -> DatasetDict:
        """Return the checked rows; the Trainer tokenises them, as its arguments say."""
        from datasets import DatasetDict

        rows = read(self.source, self.home, [*self.columns.values(), *(name for each in self.formats for name in each)])
        found = rows["train"].column_names
        if wrong := self.unfit(found):
            raise InputError(f"task.data: {wrong}")
        format_ = self._format(found)
        chosen = {name: self._named(name) for name in format_}
        chosen |= {name: self._named(name) for name in self.optional if self._named(name) in found}
        streamed = rows.pop("train") if self.source.streaming else None
        rows = complete(choose(rows, chosen), label=None, optional=self.optional)
        for split, part in rows.items():
            rows[split] = part.map(self._checked, with_indices=True, fn_kwargs={"split": split, "format_": format_})
        if self.source.drop_duplicates:
            rows = complete(rows, label=None, drop_duplicates=True, optional=self.optional)
        rows = self._limited(with_validation(rows, self.validation, self.split_seed))
        return rows if streamed is None else DatasetDict({**rows, "train": self._streamed(streamed, chosen, format_)})

    def _streamed(self, rows: Any, chosen: Mapping[str, str], format_: tuple[str, ...]) -> Any:
        """Return the stream of training rows, each checked as it is read; ``train_samples`` are the first ones."""
        from datasets import Dataset

        def checked(row: dict[str, Any], number: int) -> dict[str, Any]:
            renamed = {new: row[old] for new, old in chosen.items()}
            return {**renamed, **self._checked(renamed, number, split="train", format_=format_)}

        features = Dataset.from_list([checked(row, number) for number, row in enumerate(rows.take(HEAD))]).features
        rows = rows.map(checked, with_indices=True, remove_columns=rows.column_names, features=features)
        return rows if self.train_samples is None else rows.take(self.train_samples)

    def data_notes(self) -> list[str]:
        """Return which columns are trained."""
        return [f"trained on the columns {', '.join(self.splits['train'].column_names)}"]

    def _checked(self, row: Mapping[str, Any], number: int, *, split: str, format_: tuple[str, ...]) -> dict[str, Any]:
        """Return what to change in a row. Raises InputError naming the row where it will not do."""
        for what in self._complaints(row, format_):
            raise InputError(f"task.data: row {number + 1} of {split}: {what}")
        return {}

    def _complaints(self, row: Mapping[str, Any], format_: tuple[str, ...]) -> Iterator[str]:
        """Yield what is wrong with a row."""
        raise NotImplementedError

    def _named(self, name: str) -> str:
        """Return what the data calls one of the task's columns."""
        return self.columns.get(name, name)

    def _format(self, names: Collection[str]) -> tuple[str, ...]:
        """Return the format of data with these columns, one that ``columns`` renames first; empty for none."""
        fitting = [each for each in self.formats if all(self._named(name) in names for name in each)]
        return max(fitting, key=lambda each: sum(name in self.columns for name in each), default=())
