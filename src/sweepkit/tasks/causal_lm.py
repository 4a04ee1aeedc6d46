"""Causal language models: text packed into blocks of equal length."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from sweepkit.study.errors import InputError
from sweepkit.tasks.built_in import LanguageTask
from sweepkit.tasks.data import Column, DataSpec, read
from sweepkit.tasks.metrics import Decided
from sweepkit.tasks.rows import as_text, choose, complete
from sweepkit.tasks.shapes import TEXT
from sweepkit.tasks.splitting import rows_aside
from sweepkit.tasks.task import Template

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from transformers import EvalPrediction, PreTrainedModel, Trainer


class CausalLM(LanguageTask):
    """Predicts the next token; reports ``eval_perplexity``, the exponential of ``eval_loss``."""

    template: ClassVar[Template | None] = Template(
        metric="loss",
        data="a column text, or plain text files",
        options={"block_size": 128},
        learning_rate=("1e-6", "5e-4"),
        model="distilbert/distilgpt2",
        shapes=({"text": TEXT},),
    )
    pipeline_tag: ClassVar[str | None] = "text-generation"
    peft_task_type: ClassVar[str | None] = "CAUSAL_LM"

    metrics: list[str | dict[str, dict[str, Any]]] = ["perplexity"]
    """``perplexity`` comes from the loss; any other metric, such as accuracy, compares the most likely next tokens."""
    source: DataSpec = Field(alias="data")
    """Where the text comes from; text files are read as one text, rows of tables are joined with an end-of-text token."""
    text: Annotated[str, Column()] = "text"
    """Column with the text; a text file has the column ``text``."""
    block_size: int = Field(default=128, ge=2)
    """Length of an example in tokens; an incomplete block at the end of a split is dropped."""
    train_samples: int | None = Field(default=None, ge=1)
    """Maximum number of training blocks, drawn with ``split_seed``."""
    eval_samples: int | None = Field(default=None, ge=1)
    """Maximum number of validation blocks, and of test blocks, drawn with ``split_seed``."""
    validation: float = Field(default=0.1, gt=0, lt=1)
    """Fraction set aside where the data has no validation split: the last rows, so that no sentence is in both."""

    def data(self) -> DatasetDict:
        """Return blocks of ``block_size`` tokens; ``labels`` are the tokens themselves (the model shifts them)."""
        from datasets import DatasetDict

        rows = complete(self.rows(), label=None, drop_duplicates=self.source.drop_duplicates)
        if "validation" not in rows:
            train = rows["train"]
            cut = len(train) - rows_aside(train, self.validation)
            parts = {"train": train.select(range(cut)), "validation": train.select(range(cut, len(train)))}
            rows = DatasetDict({**rows, **parts})
        tokenizer = self.processing_class()
        self._within("block_size")
        lines = self.source.format == "text" or any(
            str(file).endswith((".txt", ".txt.gz")) for files in self.source.files(self.home).values() for file in files
        )
        end = [] if lines or tokenizer.eos_token_id is None else [tokenizer.eos_token_id]

        def pack(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
            # verbose=False: no warning about texts longer than the model's limit, which are cut into blocks here.
            ids = tokenizer(batch["text"], add_special_tokens=False, verbose=False)["input_ids"]
            tokens = list(chain.from_iterable([*text, *end] for text in ids))
            whole = len(tokens) // self.block_size * self.block_size
            blocks = [tokens[start : start + self.block_size] for start in range(0, whole, self.block_size)]
            return {"input_ids": blocks, "labels": blocks}

        blocks = rows.map(pack, batched=True, batch_size=10_000, remove_columns=["text"])
        for split, part in blocks.items():
            if not len(part):
                raise InputError(
                    f"task.data: the text of {split} is shorter than one block of {self.block_size} tokens; "
                    "lower task.block_size or add text"
                )
        return self._limited(blocks)

    def rows(self) -> DatasetDict:
        """Return the text by split in a column ``text``; override it for files of another format."""
        columns = {"text": self.text}
        return as_text(choose(read(self.source, self.home, columns.values()), columns), columns)

    def model_init(self, **config: Any) -> PreTrainedModel:
        """Return the model."""
        from transformers import AutoModelForCausalLM

        return self._model(AutoModelForCausalLM, config)

    def data_collator(self) -> Any:
        """Return a collator that stacks the blocks, which have one length."""
        from transformers import default_data_collator

        return default_data_collator

    def trainer(self, **kwargs: Any) -> Trainer:
        """Return a Trainer that adds the perplexity to each evaluation and keeps logits only if a metric needs them."""
        from transformers import Trainer

        return self._with_perplexity(Trainer, {"preprocess_logits_for_metrics": _most_likely, **kwargs})

    def predict(self, trainer: Trainer, rows: Dataset) -> tuple[dict[str, list[Any]], dict[str, float]]:
        """Return no columns: a row is a block of several texts."""
        return {}, trainer.evaluate(rows, metric_key_prefix="test")

    def decide(self, prediction: EvalPrediction) -> Decided:
        """Return the most likely next tokens."""
        from transformers import EvalPrediction

        tokens, labels = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
        return super().decide(EvalPrediction(tokens[:, :-1], labels[:, 1:]))


def _most_likely(logits: Any, labels: Any) -> Any:
    """Return the most likely token at each position, so that an evaluation need not keep logits over the vocabulary."""
    scores = logits[0] if isinstance(logits, tuple) else logits
    return scores.argmax(dim=-1)
