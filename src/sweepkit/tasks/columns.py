"""Tasks whose columns say what is trained: one of several formats, each row of which is checked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import field_validator

from sweepkit.study.errors import InputError
from sweepkit.tasks.built_in import BuiltInTask, TokenizedTask
from sweepkit.tasks.data import choose, complete, read, with_validation
from sweepkit.tasks.task import ALWAYS_REPORTED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from datasets import DatasetDict
    from transformers import PreTrainedModel


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
    """Columns of the data that are named otherwise than the task's: ``{prompt: question, completion: answer}``."""

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


class TrlTask(ColumnsTask, TokenizedTask):
    """A language model that one of TRL's Trainers trains on texts or conversations."""

    pipeline_tag: ClassVar[str | None] = "text-generation"
    peft_task_type: ClassVar[str | None] = "CAUSAL_LM"
    optional: ClassVar[tuple[str, ...]] = ("tools", "chat_template_kwargs")

    chat_template: str | None = None
    """File with a Jinja template that turns conversations into text; by default the tokenizer's own."""

    def processing_class(self) -> Any:
        """Return the tokenizer, with ``chat_template`` where one is named."""
        tokenizer = super().processing_class()
        if self.chat_template is not None:
            file = self.home / self.chat_template
            if not file.is_file():
                raise InputError(f"task.chat_template: there is no file {file}")
            tokenizer.chat_template = file.read_text(encoding="utf-8")
        return tokenizer

    def model_init(self, **config: Any) -> PreTrainedModel:
        """Return the model."""
        from transformers import AutoModelForCausalLM

        return self._model(AutoModelForCausalLM, config)

    def reported(self) -> frozenset[str] | None:
        """Return the loss and what TRL reports beside it."""
        return ALWAYS_REPORTED | {
            f"eval_{name}" for name in (*type(self).model_fields["metrics"].default, "num_tokens")
        }

    def _complaints(self, row: Mapping[str, Any], format_: tuple[str, ...]) -> Iterator[str]:
        """Yield what is neither text nor a conversation, or both in one row."""
        kinds = {name: "texts" if isinstance(row[name], str) else "messages" for name in format_}
        for name, kind in kinds.items():
            if kind == "messages" or name == "messages":
                yield from (f"{name} {wrong}" for wrong in _of_messages(row[name]))
            elif not row[name].strip():
                yield f"{name} is empty; complete or remove it"
        if len({*kinds.values()}) > 1:
            yield f"{' and '.join(format_)} are texts or messages, both alike; here {kinds}"

    def _check_template(self, args: Any) -> None:
        """Raise InputError for conversations that no template turns into text."""
        first = next(iter(self.splits["train"]))
        talks = any(isinstance(value, list) for name, value in first.items() if name not in self.optional)
        template = self.processing_class().chat_template or getattr(args, "chat_template_path", None)
        if talks and template is None:
            raise InputError(
                f"task.chat_template: {', '.join(first)} are conversations, and the model's tokenizer has no chat "
                "template that turns them into text; name a file with one, or a model that was trained to chat"
            )

    def _check_lengths(self, trainer: Any, length: Callable[[Mapping[str, Any]], int]) -> None:
        """Raise InputError for prepared rows that are longer than the model reads."""
        longest, most = self._longest(), trainer.args.max_length
        if longest is None or (most is not None and most <= longest):
            return
        for split, part in (("train", trainer.train_dataset), ("validation", trainer.eval_dataset)):
            found = max(map(length, part)) if hasattr(part, "select") else most
            if found is None or found > longest:
                raise InputError(
                    f"training.max_length: the model reads at most {longest} tokens, and a row of {split} has "
                    f"{found or 'any number'}; set training.max_length to {longest} or less"
                )


def _of_messages(found: Any) -> Iterator[str]:
    """Yield what is wrong with a conversation."""
    rule = "needs a list of messages {role: user or assistant or system, content: text}"
    if not isinstance(found, list):
        yield f"{rule}, got {found!r:.60}"
        return
    if not found:
        yield f"{rule}; the list is empty"
    for message in found:
        named = isinstance(message, Mapping) and isinstance(message.get("role"), str)
        if not named or (message.get("content") is None and not message.get("tool_calls")):
            yield f"{rule}, got {message!r:.80}"
