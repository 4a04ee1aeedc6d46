"""Sequence to sequence: a text becomes another one, such as its summary or its translation."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from sweepkit.study.errors import InputError
from sweepkit.tasks.built_in import LanguageTask
from sweepkit.tasks.data import Column, read
from sweepkit.tasks.metrics import IGNORED, Decided, of_loss
from sweepkit.tasks.rows import as_text, choose, complete
from sweepkit.tasks.shapes import Role
from sweepkit.tasks.splitting import with_validation
from sweepkit.tasks.task import Template

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from transformers import EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase, Trainer


_PAIRS = (
    ("source", "target"),
    ("src", "tgt"),
    ("input_text", "target_text"),
    ("input", "target"),
    ("document", "summary"),
    ("text", "summary"),
    ("article", "summary"),
    ("article", "highlights"),
    ("dialogue", "summary"),
)
"""Usual names of a text to read and the text to write."""


class Seq2Seq(LanguageTask):
    """A text from a text, with an encoder and a decoder (T5, BART, …); evaluations generate it.

    Its arguments are Seq2SeqTrainingArguments': ``generation_num_beams``, ``generation_max_length`` (by default
    ``max_target_length``), …
    """

    template: ClassVar[Template | None] = Template(
        metric="rougeL",
        data="columns source and target",
        learning_rate=("1e-5", "3e-3"),
        model="google-t5/t5-small",
        shapes=tuple({"source": Role((a,), "text"), "target": Role((b,), "text")} for a, b in _PAIRS),
    )
    pipeline_tag: ClassVar[str | None] = "text-generation"
    peft_task_type: ClassVar[str | None] = "SEQ_2_SEQ_LM"
    arguments_type: ClassVar[str] = "transformers:Seq2SeqTrainingArguments"
    compares: ClassVar[tuple[str, ...]] = ("loss", "texts")

    metrics: list[str | dict[str, dict[str, Any]]] = ["rouge1", "rouge2", "rougeL"]
    """Metrics by name; ``sacrebleu`` and ``chrf`` for translations. They compare with the target as far as
    ``max_target_length`` and the tokenizer keep it. Without any but ``perplexity``, nothing is generated."""
    source_column: Annotated[str, Column()] = Field(default="source", alias="source")
    """Column with the text to read; ``translation.en`` is a key of a column of mappings."""
    target_column: Annotated[str, Column()] = Field(default="target", alias="target")
    """Column with the text to write."""
    prefix: str = ""
    """Text before every source, such as T5's ``"summarize: "``."""
    source_language: str | None = None
    """Language of the source as the tokenizer names it (``en_XX``, ``eng_Latn``), for models of many languages."""
    target_language: str | None = None
    """Language of the target as the tokenizer names it; generated texts begin with its token where the model's do."""
    max_length: int | None = Field(default=None, ge=2)
    """Maximum length of a source in tokens, longer ones are truncated; by default the model's own limit."""
    max_target_length: int | None = Field(default=None, ge=2)
    """Maximum length of a target in tokens, longer ones are truncated; by default 128, or the model's own limit."""

    def data(self) -> DatasetDict:
        """Return the tokenised splits; ``labels`` are the target's tokens."""
        rows = complete(self.rows(), label=None, drop_duplicates=self.source.drop_duplicates)
        for split, part in rows.items():
            for name, column in (("source", self.source_column), ("target", self.target_column)):
                if blank := [number for number, text in enumerate(part[name], 1) if not str(text).strip()]:
                    raise InputError(
                        f"task.{name}: row {blank[0]} of {split} has a blank {column}; complete or remove such rows"
                    )
        rows = self._limited(with_validation(rows, self.validation, self.split_seed))
        tokenizer, length, most = self.processing_class(), self._within("max_length"), self._target_length()

        def tokenize(batch: dict[str, list[Any]]) -> Any:
            sources = [self.prefix + str(text) for text in batch["source"]]
            found = tokenizer(sources, truncation=length is not None, max_length=length)
            targets = [str(text) for text in batch["target"]]
            found["labels"] = tokenizer(text_target=targets, truncation=True, max_length=most)["input_ids"]
            return found

        return rows.map(tokenize, batched=True, remove_columns=["source", "target"])

    def rows(self) -> DatasetDict:
        """Return the rows by split with ``source`` and ``target``; override it for files of another format."""
        used = {"source": self.source_column, "target": self.target_column}
        return as_text(choose(read(self.source, self.home, used.values()), used, labels=("target",)), used)

    def processing_class(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer, set to the languages."""
        fresh, tokenizer = self._tokenizer is None, super().processing_class()
        for option, attribute in (("source_language", "src_lang"), ("target_language", "tgt_lang")):
            language = getattr(self, option)
            if fresh and language is not None:
                if not hasattr(tokenizer, attribute):
                    raise InputError(f"task.{option}: {type(tokenizer).__name__} has no languages; see task.prefix")
                if _language(tokenizer, language) in (None, tokenizer.unk_token_id):
                    raise InputError(f"task.{option}: {type(tokenizer).__name__} has no language {language}")
                setattr(tokenizer, attribute, language)
        return tokenizer

    def data_notes(self) -> list[str]:
        """Return how many sources and targets are as long as they may be, and what the tokenizer does not know."""
        tokenizer, found = self.processing_class(), []
        for split, part in self.splits.items():
            lengths = {"max_length": self._within("max_length"), "max_target_length": self._target_length()}
            for (option, most), column in zip(lengths.items(), ("input_ids", "labels"), strict=True):
                rows = part[column]
                if count := sum(len(row) == most for row in rows):
                    what = "sources" if column == "input_ids" else "targets"
                    found.append(
                        f"{count} of {len(rows)} {what} of {split} fill {option} ({most} tokens); longer ones are cut"
                    )
            unknown = (
                sum(tokenizer.unk_token_id in row for row in part["labels"]) if tokenizer.unk_token is not None else 0
            )
            if unknown:
                found.append(
                    f"{unknown} of {len(part)} targets of {split} contain characters that the tokenizer does not know"
                )
        if any(name.startswith("rouge") for name in self.metric_names):
            texts = tokenizer.batch_decode(list(self.splits["validation"]["labels"]), skip_special_tokens=True)
            if count := sum(re.search("[a-z0-9]", text.lower()) is None for text in texts):
                found.append(
                    f"rouge compares words of a to z and 0 to 9, which {count} of {len(texts)} targets of validation lack; "
                    "sacrebleu and chrf read every script"
                )
        return found

    def model_init(self, **config: Any) -> PreTrainedModel:
        """Return the model; texts that it generates begin with the target's language."""
        from transformers import AutoModelForSeq2SeqLM

        tokenizer, configuration = self.processing_class(), self._configuration()
        if not configuration.is_encoder_decoder:
            raise InputError(
                f"task.model: {configuration.model_type} has no decoder that reads an encoder's states; seq2seq needs a "
                "model such as T5, BART or Marian (causal-lm and sft train decoders alone)"
            )
        model = self._model(AutoModelForSeq2SeqLM, config)
        if getattr(model.config, "decoder_start_token_id", None) is None:  # as for a T5 from a configuration
            for each in (model.config, model.generation_config):
                each.decoder_start_token_id = tokenizer.pad_token_id
        if self.target_language is not None:
            language, [first, *_] = _language(tokenizer, self.target_language), tokenizer(text_target="")["input_ids"]
            where = "forced_bos_token_id" if first == language else "decoder_start_token_id"
            setattr(model.generation_config, where, language)
        return model

    def trainer(self, **kwargs: Any) -> Trainer:
        """Return a Seq2SeqTrainer that generates where a metric compares texts, and adds the perplexity."""
        from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer

        class _Trainer(Seq2SeqTrainer):
            def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
                """Evaluate each row once, also where the last batch of several ranks repeats some."""
                self.gather_function = self.accelerator.gather_for_metrics
                return super().evaluation_loop(*args, **kwargs)

        arguments = kwargs["args"]
        arguments.predict_with_generate |= not all(of_loss(name) for name in self.metric_names)
        if arguments.generation_max_length is None:
            arguments.generation_max_length = self._target_length()
        if kwargs.get("data_collator") is None:
            kwargs["data_collator"] = DataCollatorForSeq2Seq(self.processing_class(), model=kwargs["model"])
        return self._with_perplexity(_Trainer, kwargs)

    def predict(self, trainer: Trainer, rows: Dataset) -> tuple[dict[str, list[Any]], dict[str, float]]:
        """Return the generated texts, also where no metric asks for them."""
        trainer.args.predict_with_generate = True  # type: ignore[attr-defined]  # Seq2SeqTrainingArguments
        return super().predict(trainer, rows)

    def _target_length(self) -> int | None:
        return self._within("max_target_length", usual=128)

    def decide(self, prediction: EvalPrediction) -> Decided:
        """Return the generated texts."""
        return decide_texts(prediction.predictions, prediction.label_ids, self.processing_class())


def decide_texts(outputs: Any, labels: Any, tokenizer: PreTrainedTokenizerBase) -> Decided:
    """Return texts from generated tokens and from labels, without special tokens and blanks at the ends."""
    import numpy as np

    def texts(batches: Any) -> list[str]:
        found: list[str] = []
        for ids in batches if isinstance(batches, list) else [batches]:
            tokens = ids[0] if isinstance(ids, tuple) else ids
            kept = np.where(tokens == IGNORED, tokenizer.pad_token_id, tokens)
            found += (text.strip() for text in tokenizer.batch_decode(kept, skip_special_tokens=True))
        return found

    return Decided("generated texts", texts(labels), {"texts": texts(outputs)})


def _language(tokenizer: Any, name: str) -> int | None:
    """Return the token of a language."""
    try:
        found: int | None = (
            tokenizer.get_lang_id(name) if hasattr(tokenizer, "get_lang_id") else tokenizer.convert_tokens_to_ids(name)
        )
    except KeyError:
        return None
    return found
