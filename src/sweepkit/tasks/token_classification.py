"""Token classification: one tag per word, such as the entities of a text or its parts of speech."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field, field_validator

from sweepkit.study.errors import InputError
from sweepkit.tasks import labels, metrics, models
from sweepkit.tasks.built_in import TokenizedTask, Without
from sweepkit.tasks.data import Column, DataSpec, read
from sweepkit.tasks.metrics import IGNORED, Decided
from sweepkit.tasks.rows import choose, complete
from sweepkit.tasks.shapes import Role
from sweepkit.tasks.splitting import with_validation
from sweepkit.tasks.task import Template

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from transformers import BatchEncoding, EvalPrediction, PreTrainedModel, PreTrainedTokenizerBase, Trainer

_ENTITY = re.compile(r"[BIESLU]-.+")


class TokenClassification(TokenizedTask):
    """One tag per word; the first token of a word carries its tag, the others are ignored.

    Tags such as B-PER and I-PER are scored by entity, as seqeval does; other tags, such as parts of speech, by word.
    """

    template: ClassVar[Template | None] = Template(
        metric="f1",
        data="columns words and tags with a list per row, or CoNLL files",
        shapes=(
            {
                "words": Role(("words tokens", "word token text sentence"), "words"),
                "tags": Role(("tags ner_tags ner", "labels pos_tags pos upos xpos chunk_tags"), "tags"),
            },
        ),
    )
    pipeline_tag: ClassVar[str | None] = "token-classification"
    peft_task_type: ClassVar[str | None] = "TOKEN_CLS"
    compares: ClassVar[tuple[str, ...]] = ("tags", "classes")

    metrics: list[str | dict[str, dict[str, Any]]] = ["precision", "recall", "f1", "accuracy"]
    """Metrics by name. Of entities by seqeval, ``{f1: {scheme: IOB2}}`` for its strict mode; of other tags the macro
    average. ``accuracy`` is always that of the words' tags."""
    source: DataSpec = Field(alias="data")
    """Where the rows come from: the hub, files with a list of words and one of tags per row, or CoNLL files."""
    words: Annotated[str, Column()] = "words"
    """Column with the list of words; the first one of a CoNLL file."""
    tags: Annotated[str, Column(label=True)] = "tags"
    """Column with the list of tags, texts or class ids; the last one of a CoNLL file."""
    max_length: int | None = Field(default=None, ge=2)
    """Maximum length in tokens; words beyond it are left out, and counted before the first trial. By default the model's."""

    @field_validator("source")
    @classmethod
    def _conll(cls, source: DataSpec) -> DataSpec:
        files = [source.path, source.train, source.validation, source.test]
        names = [name for each in files for name in ([each] if isinstance(each, str) else each or ())]
        plain = source.format is None and source.name is None
        if plain and all(Path(name.removesuffix(".gz")).suffix in (".txt", ".bio", ".iob", ".iob2") for name in names):
            return source.model_copy(update={"format": "conll"})
        return source

    def data(self) -> DatasetDict:
        """Return the tokenised splits: ``tags`` of the words (ClassLabels), and ``labels`` of the tokens."""
        rows = complete(self.rows(), label="tags", drop_duplicates=self.source.drop_duplicates)
        _check(rows, {"words": self.words, "tags": self.tags})
        rows, names = labels.encode_lists(rows, "tags", "tags")
        if _by_entity(names) and (problem := metrics.missing(self.metric_names, "tags")):
            raise problem
        rows = self._limited(with_validation(rows, self.validation, self.split_seed))
        tokenizer, length = self.processing_class(), self._within("max_length")

        def tokenize(batch: dict[str, list[Any]]) -> Any:
            return align(tokenizer, batch["words"], batch["tags"], truncation=length is not None, max_length=length)

        return rows.map(tokenize, batched=True, remove_columns=["words"])

    def rows(self) -> DatasetDict:
        """Return the rows by split with ``words`` and ``tags``; override it for files of another format."""
        used = {"words": self.words, "tags": self.tags}
        return choose(read(self.source, self.home, used.values()), used, labels=("tags",))

    def processing_class(self) -> PreTrainedTokenizerBase:
        """Return the tokenizer, set to put a blank before each word where it tells words apart by blanks."""
        if self._tokenizer is None:
            tokenizer = super().processing_class()
            if not tokenizer.is_fast:
                raise InputError(
                    f"task.model: {type(tokenizer).__name__} cannot align tokens with words; choose another model"
                )
            if getattr(tokenizer.backend_tokenizer.pre_tokenizer, "add_prefix_space", None) is False:
                options = {"trust_remote_code": self.trust_remote_code, "add_prefix_space": True}
                tokenizer = models.tokenizer(self.model, self.home, **options)
                tokenizer.backend_tokenizer.pre_tokenizer.add_prefix_space = True
            self._tokenizer = tokenizer
        return self._tokenizer

    def data_collator(self) -> Any:
        """Return a collator that pads each batch, and its labels with -100, to its longest row."""
        from transformers import DataCollatorForTokenClassification

        return Without(("tags",), DataCollatorForTokenClassification(self.processing_class()))

    def data_notes(self) -> list[str]:
        """Return how many words are left out, and what is unusual about the tags."""
        found = []
        for split, part in self.splits.items():
            words = sum(map(len, part["tags"]))
            lost = words - sum(label != IGNORED for row in part["labels"] for label in row)
            if lost:
                why = f"lie beyond {self._within('max_length')} tokens or have none"
                found.append(f"{lost} of {words} words of {split} {why}; they are neither trained on nor evaluated")
        names = self._names()
        if not _by_entity(names) and (entities := [name for name in names if _ENTITY.fullmatch(name)]):
            other = next(name for name in names if name != "O" and name not in entities)
            found.append(f"{entities[0]!r} marks an entity, but {other!r} does not, so tags are scored by word")
        return [*found, *labels.notes(self.splits, "tags", "words")]

    def model_init(self, **config: Any) -> PreTrainedModel:
        """Return the model with a head for the data's tags: the checkpoint's own where it has as many, else a new one."""
        from transformers import AutoModelForTokenClassification

        return self._model(AutoModelForTokenClassification, {**models.classes(self._names(), None), **config})

    def decide(self, prediction: EvalPrediction) -> Decided:
        """Return the most likely tag of each word."""
        return decide_tags(prediction.predictions, prediction.label_ids, self._names())

    def predict(self, trainer: Trainer, rows: Dataset) -> tuple[dict[str, list[Any]], dict[str, float]]:
        """Return the tags of each row's words, as far as the model reads them."""
        output, names = trainer.predict(rows, metric_key_prefix="test"), self._names()
        both = [
            [[names[tag] for tag in tags] for tags in each] for each in _words(output.predictions, output.label_ids)
        ]
        return dict(zip(("prediction", "label"), map(list, zip(*both, strict=True)), strict=True)), output.metrics or {}

    def any_label(self, label: Any, row: Mapping[str, Any]) -> Any:
        """Return a tag for each word."""
        return [label[0]] * len(row[self.words])

    def _names(self) -> list[str]:
        names: list[str] = self.splits["train"].features["tags"].feature.names
        return names


def align(
    tokenizer: PreTrainedTokenizerBase, words: Sequence[list[Any]], tags: Sequence[list[int]], **options: Any
) -> BatchEncoding:
    """Return the tokens of lists of words; in ``labels`` the first token of a word has its tag, all others -100.

    ``options`` are the tokenizer's, such as ``truncation`` and ``max_length``.
    """
    batch: BatchEncoding = tokenizer(
        [[str(word) for word in row] for row in words], is_split_into_words=True, **options
    )
    batch["labels"] = []
    for number, row in enumerate(tags):
        places = batch.word_ids(number)
        pairs = zip([None, *places], places, strict=False)
        batch["labels"].append([IGNORED if place in (None, before) else row[place] for before, place in pairs])
    return batch


def decide_tags(outputs: Any, labels: Any, names: Sequence[str]) -> Decided:
    """Return the most likely tags by example, as texts where all mark entities, else as class ids of all words.

    Outputs are logits over ``names`` or class ids; labels of -100 are left out.
    """
    import numpy as np

    predicted, true = zip(*_words(outputs, labels), strict=True)
    if not _by_entity(names):
        rule = f"argmax over {len(names)} classes"
        return Decided(rule, np.concatenate(true), {"classes": np.concatenate(predicted)}, average="macro")
    found, wanted = ([[names[number] for number in row] for row in rows] for rows in (predicted, true))
    return Decided(f"argmax over {len(names)} tags, by entity", wanted, {"tags": found})


def _words(outputs: Any, labels: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the predicted and the true class ids of each example's words."""
    batches = zip(outputs, labels, strict=True) if isinstance(labels, list) else [(outputs, labels)]
    for scores, numbers in batches:
        scores = scores[0] if isinstance(scores, tuple) else scores
        decided = scores.argmax(axis=-1) if scores.ndim > numbers.ndim else scores
        for found, true in zip(decided, numbers, strict=True):
            yield found[true != IGNORED], true[true != IGNORED]


def _by_entity(names: Sequence[str]) -> bool:
    entities = [name for name in names if name != "O"]
    return bool(entities) and all(_ENTITY.fullmatch(name) for name in entities)


def _check(rows: DatasetDict, columns: dict[str, str]) -> None:
    """Raise InputError for a row that does not hold a list of words and as many tags."""
    for split, part in rows.items():
        for option, column in columns.items():
            if not hasattr(part.features[option], "feature"):
                raise InputError(
                    f"task.{option}: expected a list per row, got {part[0][option]!r} in {column} of row 1 of {split}; "
                    "write lists (jsonl, parquet), or CoNLL files"
                )
        for number, (words, tags) in enumerate(zip(part["words"], part["tags"], strict=True), 1):
            if not words or None in words:
                raise InputError(f"task.data: row {number} of {split} has {'an empty word' if words else 'no words'}")
            if len(words) != len(tags):
                raise InputError(f"task.data: row {number} of {split} has {len(words)} words, but {len(tags)} tags")
