"""Language models that TRL's Trainers train on texts or conversations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from sweepkit.study.errors import InputError
from sweepkit.tasks import private
from sweepkit.tasks.built_in import TokenizedTask
from sweepkit.tasks.columns import ColumnsTask
from sweepkit.tasks.task import ALWAYS_REPORTED

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, Trainer


class TrlTask(ColumnsTask, TokenizedTask):
    """A language model that one of TRL's Trainers trains on texts or conversations."""

    pipeline_tag: ClassVar[str | None] = "text-generation"
    peft_task_type: ClassVar[str | None] = "CAUSAL_LM"
    optional: ClassVar[tuple[str, ...]] = ("tools", "chat_template_kwargs")

    decides: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "model_init_kwargs": "the task makes the model: see model.*",
            "chat_template_path": "see task.chat_template",
            "dataset_text_field": "see task.columns",
        }
    )

    chat_template: str | None = None
    """File with a Jinja template that turns conversations into text; by default the tokenizer's own."""

    def inputs(self) -> list[Path]:
        """Return the data files, those that the tokenizer depends on, and the chat template."""
        return [*super().inputs(), *([self._template()] if self.chat_template is not None else [])]

    def processing_class(self) -> Any:
        """Return the tokenizer, with ``chat_template`` where one is named."""
        tokenizer = super().processing_class()
        if self.chat_template is not None:
            tokenizer.chat_template = self._template().read_text(encoding="utf-8")
        return tokenizer

    def model_init(self, **config: Any) -> PreTrainedModel:
        """Return the model."""
        from transformers import AutoModelForCausalLM

        return self._model(AutoModelForCausalLM, config)

    def predict(self, trainer: Trainer, rows: Dataset) -> tuple[dict[str, list[Any]], dict[str, float]]:
        """Return no columns: TRL's Trainers compare no texts."""
        return {}, trainer.evaluate(rows, metric_key_prefix="test")

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

    def _template(self) -> Path:
        file = (self.home / Path(self.chat_template or "").expanduser()).resolve()
        if not file.is_file():
            raise InputError(f"task.chat_template: there is no file {file}")
        return file

    def _made(self, trainer: Callable[..., Any], length: Callable[[Mapping[str, Any]], int], **kwargs: Any) -> Trainer:
        """Return one of TRL's Trainers; ``length`` is that of a prepared row in tokens.

        Raises InputError for conversations that no template turns into text, and rows longer than the model reads.
        """
        first = next(iter(self.splits["train"]))
        talks = any(isinstance(value, list) for name, value in first.items() if name not in self.optional)
        if talks and self.processing_class().chat_template is None:
            raise InputError(
                f"task.chat_template: {', '.join(first)} are conversations, and the model's tokenizer has no chat "
                "template that turns them into text; name a file with one, or a model that was trained to chat"
            )
        made = trainer(**{**kwargs, "compute_metrics": None})
        longest, most = self._longest(), made.args.max_length
        unlimited = longest is not None and (most is None or most > longest)
        for split, part in (("train", made.train_dataset), ("validation", made.eval_dataset)) if unlimited else ():
            found = max(map(length, part)) if hasattr(part, "select") else most
            if longest is not None and (found is None or found > longest):
                raise InputError(
                    f"training.max_length: the model reads at most {longest} tokens, and a row of {split} has "
                    f"{found or 'any number'}; set training.max_length to {longest} or less"
                )
        private.keep_counting(made)
        found_trainer: Trainer = made
        return found_trainer


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
