"""Causal language models: text packed into blocks of equal length."""

from __future__ import annotations

import math
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field, PrivateAttr

from sweepkit.study.errors import InputError
from sweepkit.tasks import models
from sweepkit.tasks.data import DataSpec, choose, complete, limit, read
from sweepkit.tasks.models import ModelRef
from sweepkit.tasks.task import ALWAYS_REPORTED, Task, Template

if TYPE_CHECKING:
    from datasets import DatasetDict
    from transformers import EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase, Trainer


class CausalLM(Task):
    """Predicts the next token; reports ``eval_perplexity``, the exponential of ``eval_loss``."""

    template: ClassVar[Template | None] = Template(
        metric="loss",
        data="a column text, or plain text files",
        options={"block_size": 128},
        learning_rate=("1e-6", "5e-4"),
    )
    pipeline_tag: ClassVar[str | None] = "text-generation"
    peft_task_type: ClassVar[str | None] = "CAUSAL_LM"

    metrics: list[str | dict[str, dict[str, Any]]] = ["perplexity"]
    """``perplexity`` comes from the loss; any other metric (accuracy) compares each most likely next token."""
    model: ModelRef
    """Hub id, folder, ``package:NAME/sub/folder``, or ``{config: {model_type: …}, tokenizer: …}`` (random weights)."""
    source: DataSpec = Field(alias="data")
    """Where the text comes from: text files are one text, tables are joined row by row with an end-of-text token."""
    text: str = "text"
    """Column with the text (a text file has the one column ``text``)."""
    block_size: int = Field(default=128, ge=2)
    """Length of a training example in tokens; what is left at the end of a split is dropped."""
    train_samples: int | None = Field(default=None, ge=1)
    """At most this many training blocks, drawn with ``split_seed``."""
    eval_samples: int | None = Field(default=None, ge=1)
    """At most this many validation (and test) blocks, drawn with ``split_seed``."""
    validation: float = Field(default=0.1, gt=0, lt=1)
    """Where the data has no validation split: the last fraction of the rows, so that no sentence is seen in both."""
    split_seed: int = 0
    """Seed of the limits; it is not the trial's seed, so that all trials see the same blocks."""

    _tokenizer: PreTrainedTokenizerBase | None = PrivateAttr(default=None)

    def data(self) -> DatasetDict:
        """Return blocks of ``block_size`` tokens; ``labels`` are the tokens themselves (the model shifts them)."""
        from datasets import DatasetDict

        rows = complete(self.rows(), label=None, drop_duplicates=self.source.drop_duplicates)
        if "validation" not in rows:
            train = rows["train"]
            if len(train) < 2:
                raise InputError(f"task.data: {len(train)} row is too few to set some aside for validation")
            cut = len(train) - min(max(1, round(self.validation * len(train))), len(train) - 1)
            parts = {"train": train.select(range(cut)), "validation": train.select(range(cut, len(train)))}
            rows = DatasetDict({**rows, **parts})
        tokenizer = self.processing_class()
        config = models.configuration(self.model, self.home, trust_remote_code=self.trust_remote_code)
        possible = models.longest(config, tokenizer)
        if possible is not None and self.block_size > possible:
            raise InputError(f"task.block_size: the model reads at most {possible} tokens, got {self.block_size}")
        lines = self.source.format == "text" or any(
            str(file).endswith((".txt", ".txt.gz")) for files in self.source.files(self.home).values() for file in files
        )
        end = [] if lines or tokenizer.eos_token_id is None else [tokenizer.eos_token_id]

        def pack(batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
            # The tokenizer warns of texts longer than the model reads; these are cut into blocks right here.
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
                    "lower task.block_size or give more text"
                )
        limits = {"train": self.train_samples, "validation": self.eval_samples, "test": self.eval_samples}
        return limit(blocks, limits, self.split_seed)

    def rows(self) -> DatasetDict:
        """Return the text by split, in a column ``text``; override it for files that no format describes."""
        return choose(read(self.source, self.home), {"text": self.text})

    def model_init(self, **config: Any) -> PreTrainedModel:
        """Return the model."""
        from transformers import AutoModelForCausalLM

        return models.model(
            AutoModelForCausalLM, self.model, self.home, config, trust_remote_code=self.trust_remote_code
        )

    def processing_class(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer."""
        if self._tokenizer is None:
            self._tokenizer = models.tokenizer(self.model, self.home, trust_remote_code=self.trust_remote_code)
        return self._tokenizer

    def data_collator(self) -> Any:
        """Stack the blocks; they are of one length."""
        from transformers import default_data_collator

        return default_data_collator

    def inputs(self) -> list[Path]:
        """Return the data files and, of a local model, the files that make its tokenizer."""
        return [*self.source.local_files(self.home), *models.local_files(self.model, self.home)]

    def trainer(self, **kwargs: Any) -> Trainer:
        """Return a Trainer that adds the perplexity to each evaluation and keeps no logits that no metric needs."""
        if self._compared():
            return _trainer()(**{"preprocess_logits_for_metrics": _most_likely, **kwargs})
        return _trainer()(**{**kwargs, "compute_metrics": None})

    def compute_metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        """Return the metrics other than perplexity, over each most likely next token."""
        from transformers import EvalPrediction

        tokens, labels = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
        return self._score(self._compared(), EvalPrediction(tokens[:, :-1], labels[:, 1:]))

    def reported(self) -> frozenset[str] | None:
        """Return the loss, the perplexity and the bundled metrics among ``metrics``."""
        keys = self._keys(self._compared())
        return None if keys is None else ALWAYS_REPORTED | {"eval_perplexity"} | keys

    def _compared(self) -> list[str | dict[str, dict[str, Any]]]:
        """The metrics that need predictions."""
        return [entry for entry in self.metrics if entry != "perplexity" and entry != {"perplexity": {}}]


def _most_likely(logits: Any, labels: Any) -> Any:
    """Return the most likely token at each position, so that an evaluation keeps no logits of a whole vocabulary."""
    scores = logits[0] if isinstance(logits, tuple) else logits
    return scores.argmax(dim=-1)


@cache
def _trainer() -> type[Trainer]:
    from transformers import Trainer

    class LanguageTrainer(Trainer):
        """A Trainer whose evaluations report the perplexity, the exponential of the mean loss per token."""

        def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
            """Evaluate, and add the perplexity."""
            output = super().evaluation_loop(*args, **kwargs)
            metrics = output.metrics or {}
            for name in [name for name in metrics if name.endswith("_loss")]:
                loss = metrics[name]  # above 700 the exponential overflows
                metrics[name.removesuffix("loss") + "perplexity"] = math.exp(loss) if loss < 700 else math.inf
            return output

    return LanguageTrainer
