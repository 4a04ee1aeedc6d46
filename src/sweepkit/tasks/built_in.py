"""What the built-in kinds share: a model by reference, rows from a source, and how many of them are used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, PrivateAttr, field_validator

from sweepkit.study import words
from sweepkit.study.errors import InputError
from sweepkit.tasks import models, quantization
from sweepkit.tasks.data import DataSpec, count_skipped
from sweepkit.tasks.metrics import of_loss
from sweepkit.tasks.models import ModelRef
from sweepkit.tasks.scores import perplexity
from sweepkit.tasks.splitting import limit
from sweepkit.tasks.task import ALWAYS_REPORTED, Task

if TYPE_CHECKING:
    from datasets import DatasetDict
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, Trainer


class BuiltInTask(Task):
    """A task whose data and model are named in the study."""

    streams: ClassVar[bool] = False
    """Whether its training rows may be streamed."""

    model: ModelRef
    """Hub id, folder, ``package:NAME/sub/folder``, or ``{config: {model_type: …}, tokenizer: …}`` for random weights."""
    source: DataSpec = Field(alias="data")
    """Where the rows come from. A subclass whose ``data()`` reads no such source has ``source: None = None``."""
    train_samples: int | None = Field(default=None, ge=1)
    """Maximum number of training rows, drawn with ``split_seed``."""
    eval_samples: int | None = Field(default=None, ge=1)
    """Maximum number of validation rows, and of test rows, drawn with ``split_seed``."""
    validation: float = Field(default=0.2, gt=0, lt=1)
    """Fraction of the training rows set aside where the data has no validation split; the same rows in every trial."""
    split_seed: int = 0
    """Seed of the validation split and the limits. It is not the trial's seed, so that all trials see the same rows."""

    quantization: dict[str, Any] | None = None
    """Fields of BitsAndBytesConfig, such as ``{load_in_4bit: true, bnb_4bit_quant_type: nf4}``, to load the weights in 4 or 8
    bits. It needs bitsandbytes and a GPU, and trains an adapter (``peft.*``)."""

    @field_validator("source")
    @classmethod
    def _may_stream(cls, source: DataSpec) -> DataSpec:
        if source.streaming and not cls.streams:
            raise ValueError("streaming: true is for kinds whose Trainer reads the rows as they are (sft, dpo, …)")
        return source

    def inputs(self) -> list[Path]:
        """Return the data files and, of a local model, the files that its tokenizer depends on."""
        source: Any = self.source
        return [
            *(source.local_files(self.home) if source is not None else ()),
            *models.local_files(self.model, self.home),
        ]

    def left_out(self) -> list[str]:
        """Return how many lines of the data's files ``lines: skip`` leaves out."""
        source: Any = self.source
        found = count_skipped(source, self.home) if source is not None else {}
        return [
            f"{words.plural(count, 'line')} of {split} left out, as lines: skip says" for split, count in found.items()
        ]

    def _limited(self, rows: DatasetDict) -> DatasetDict:
        """Return at most ``train_samples`` and ``eval_samples`` rows."""
        limits = {"train": self.train_samples, "validation": self.eval_samples, "test": self.eval_samples}
        return limit(rows, limits, self.split_seed)

    def _model(self, auto: Any, overrides: Mapping[str, Any]) -> PreTrainedModel:
        """Return a fresh model of an ``AutoModelFor…`` class."""
        return models.model(auto, self.model, self.home, overrides, **self._loading())

    def _loading(self) -> dict[str, Any]:
        """Return the arguments of ``from_pretrained`` that the study decides."""
        given: dict[str, Any] = {"trust_remote_code": self.trust_remote_code}
        if self.quantization is not None:
            given["quantization_config"] = quantization.configuration(self.quantization)
        return given


class TokenizedTask(BuiltInTask):
    """A built-in task that reads text."""

    _tokenizer: PreTrainedTokenizerBase | None = PrivateAttr(default=None)

    def processing_class(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer."""
        if self._tokenizer is None:
            self._tokenizer = models.tokenizer(self.model, self.home, trust_remote_code=self.trust_remote_code)
        return self._tokenizer

    def _configuration(self) -> PreTrainedConfig:
        return models.configuration(self.model, self.home, trust_remote_code=self.trust_remote_code)

    def _longest(self) -> int | None:
        """Return the model's longest input in tokens; None where nothing limits it."""
        return models.longest(self._configuration(), self.processing_class())

    def _within(self, option: str, usual: int | None = None) -> int | None:
        """Return the length in tokens that an option sets, else the usual one, at most the model's longest input.

        Raises InputError where the option sets more.
        """
        length, longest = getattr(self, option), self._longest()
        if length is not None and longest is not None and length > longest:
            raise InputError(f"task.{option}: the model reads at most {longest} tokens, got {length}")
        return length or min((each for each in (usual, longest) if each is not None), default=None)


@dataclass(frozen=True)
class Without:
    """A collator that leaves out columns that only metrics and notes read, where the Trainer keeps them."""

    columns: tuple[str, ...]
    collate: Callable[[list[dict[str, Any]]], Any]

    def __call__(self, rows: list[dict[str, Any]]) -> Any:
        """Return the batch of the rows."""
        return self.collate([{name: row[name] for name in row if name not in self.columns} for row in rows])


class LanguageTask(TokenizedTask):
    """A task whose loss is per token, so that evaluations also report its exponential, the perplexity."""

    compares: ClassVar[tuple[str, ...]] = ("loss", "classes")

    def reported(self) -> frozenset[str] | None:
        """Return the loss, the perplexity and the metrics; None where one of ``metrics`` is not bundled."""
        keys = self._keys()
        return None if keys is None else ALWAYS_REPORTED | {"eval_perplexity"} | keys

    def _with_perplexity(self, trainer: type[Trainer], kwargs: Mapping[str, Any]) -> Trainer:
        """Return a Trainer that adds the perplexity, and makes no predictions where the loss is all that counts."""
        unneeded = {"compute_metrics": None} if all(of_loss(name) for name in self.metric_names) else {}
        made: Trainer = with_perplexity(trainer)(**{**kwargs, **unneeded})
        return made


def with_perplexity(trainer: type[Any]) -> type[Any]:
    """Return a Trainer class whose evaluations also report the perplexity, the exponential of the mean loss per token.

    It is left out where the loss is not the negative log-likelihood alone: with label smoothing, a mixture of experts'
    auxiliary loss, or another ``loss_type`` of TRL.
    """

    class WithPerplexity(trainer):  # type: ignore[misc]  # a class that is not known before the call
        def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
            """Evaluate, and add the perplexity."""
            output = super().evaluation_loop(*args, **kwargs)
            metrics = output.metrics or {}
            alone = not self.args.label_smoothing_factor and getattr(self.args, "loss_type", "nll") == "nll"
            alone = alone and not getattr(getattr(self.model, "config", None), "output_router_logits", False)
            for name in [name for name in metrics if name.endswith("_loss") and alone]:
                metrics[name.removesuffix("loss") + "perplexity"] = perplexity(metrics[name])
            return output

    return WithPerplexity
