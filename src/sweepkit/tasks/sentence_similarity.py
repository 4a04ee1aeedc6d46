"""Sentence embeddings, trained with sentence-transformers."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from inspect import signature
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, field_validator

from sweepkit.study.errors import InputError, nearest
from sweepkit.tasks import models
from sweepkit.tasks.columns import ColumnsTask
from sweepkit.tasks.data import DataSpec, columns
from sweepkit.tasks.shapes import Role, of_columns
from sweepkit.tasks.task import ALWAYS_REPORTED, Template

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import Trainer

Loss = Literal[
    "MultipleNegativesRankingLoss",
    "MultipleNegativesSymmetricRankingLoss",
    "CachedMultipleNegativesRankingLoss",
    "CachedMultipleNegativesSymmetricRankingLoss",
    "MegaBatchMarginLoss",
    "TripletLoss",
    "CoSENTLoss",
    "AnglELoss",
    "CosineSimilarityLoss",
    "ContrastiveLoss",
    "OnlineContrastiveLoss",
    "MatryoshkaLoss",
    "AdaptiveLayerLoss",
    "Matryoshka2dLoss",
]
PAIRS, TRIPLETS = ("anchor", "positive"), ("anchor", "positive", "negative")
SCORED, LABELLED = ("sentence1", "sentence2", "score"), ("sentence1", "sentence2", "label")
_FITS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "MegaBatchMarginLoss": (PAIRS,),
    "TripletLoss": (TRIPLETS,),
    **dict.fromkeys(("CoSENTLoss", "AnglELoss", "CosineSimilarityLoss"), (SCORED,)),
    **dict.fromkeys(("ContrastiveLoss", "OnlineContrastiveLoss"), (LABELLED,)),
}
"""Loss → the columns it takes, where those are not anchors with positives, and negatives or none."""
_DEFAULTS: Mapping[tuple[str, ...], str] = {SCORED: "CoSENTLoss", LABELLED: "ContrastiveLoss"}
_ROW_BY_ROW = frozenset({"TripletLoss", "CosineSimilarityLoss", "ContrastiveLoss"})
"""Losses of each row by itself; the others compare the rows of a batch with each other."""
_SIMILARITIES = ("cosine", "dot")
_SENTENCES = of_columns({"sentence1": "sentence_a text1", "sentence2": "sentence_b text2"})
_REPORTED: Mapping[tuple[str, ...], tuple[str, ...]] = {
    PAIRS: ("{}_ndcg@10", "{}_mrr@10", "{}_map@100", "{}_accuracy@1", "{}_recall@10"),
    TRIPLETS: ("{}_accuracy",),
    SCORED: ("spearman_{}", "pearson_{}"),
    LABELLED: ("{}_ap", "{}_f1", "{}_accuracy", "{}_mcc"),
}
"""Columns → the metrics among their evaluator's that are promised, of each similarity."""


def _reported(format_: tuple[str, ...]) -> list[str]:
    return [name.format(similarity) for name in _REPORTED[format_] for similarity in _SIMILARITIES]


class SentenceSimilarity(ColumnsTask):
    """Trains sentence embeddings whose similarity says how alike two texts are, with sentence-transformers.

    The columns decide the default loss and the evaluator: anchor and positive (retrieval of each anchor's positive), with a
    negative too (how often the positive is nearer), sentence1 and sentence2 with a score (rank correlation) or with a label
    of 0 or 1 (average precision).
    """

    template: ClassVar[Template | None] = Template(
        metric="loss",
        data="anchor, positive (and negative), or sentence1, sentence2 and score (or label)",
        learning_rate=("1e-6", "1e-3"),
        model="sentence-transformers/all-MiniLM-L6-v2",
        shapes=(
            of_columns({"anchor": "query", "positive": "", "negative": ""}),
            of_columns({"anchor": "query", "positive": ""}),
            {**_SENTENCES, "score": Role(("score", "similarity similarity_score relatedness_score"), "number class")},
            {**_SENTENCES, "label": Role(("label",), "class")},
        ),
    )
    pipeline_tag: ClassVar[str | None] = "sentence-similarity"
    peft_task_type: ClassVar[str | None] = "FEATURE_EXTRACTION"
    arguments_type: ClassVar[str] = "sentence_transformers:SentenceTransformerTrainingArguments"
    formats: ClassVar[tuple[tuple[str, ...], ...]] = (TRIPLETS, PAIRS, SCORED, LABELLED)

    metrics: list[str | dict[str, dict[str, Any]]] = list(
        dict.fromkeys(name for format_ in _REPORTED for name in _reported(format_))
    )
    """What the evaluators report; which one runs depends on the columns. No other metric can be added."""
    loss: Loss | dict[Loss, dict[str, Any]] | None = None
    """A loss of sentence-transformers by name, with options as ``{CachedMultipleNegativesRankingLoss: {scale: 30}}``; by
    default MultipleNegativesRankingLoss, CoSENTLoss for scores, ContrastiveLoss for labels. MatryoshkaLoss and the like take
    the name of the loss that they change as ``loss``."""
    max_length: int | None = Field(default=None, ge=2)
    """Maximum input length in tokens, longer texts are truncated; by default the model's own limit."""

    @field_validator("loss")
    @classmethod
    def _one_loss(cls, loss: Any) -> Any:
        if isinstance(loss, dict) and len(loss) != 1:
            raise ValueError(f"expected one loss, its name or {{name: {{option: value}}}}, got {', '.join(loss)}")
        return loss

    @property
    def micro_batch_matters(self) -> bool:  # type: ignore[override]  # a constant of other kinds
        """Whether the loss compares the rows of a batch with each other."""
        return _name(self.loss or self._default_loss()) not in _ROW_BY_ROW

    def model_init(self, **config: Any) -> Any:
        """Return the SentenceTransformer: the folder's or the hub's, or mean pooling over any other model."""
        from sentence_transformers import SentenceTransformer
        from transformers import AutoModel

        changed = models.configuration(self.model, self.home, trust_remote_code=self.trust_remote_code, **config)
        loading = self._loading()
        options: dict[str, Any] = {"trust_remote_code": loading.pop("trust_remote_code")}
        options["device"] = None if loading else "cpu"  # the Trainer moves it, but not what is quantized
        options["config_kwargs"] = {
            name: getattr(changed, name) for name in {each.partition(".")[0] for each in config}
        }
        options["model_kwargs"] = {"dtype": changed.dtype if "dtype" in config else "float32", **loading}
        if isinstance(self.model, str):
            found = SentenceTransformer(models.locate(self.model, self.home), **options)
        else:
            with TemporaryDirectory(prefix="sweepkit-") as folder:
                self._model(AutoModel, config).save_pretrained(folder)
                models.tokenizer(self.model, self.home).save_pretrained(folder)
                found = SentenceTransformer(folder, **options)
        if self.max_length is not None:
            longest = getattr(changed, "max_position_embeddings", None)
            if longest is not None and self.max_length > longest:
                raise InputError(f"task.max_length: the model reads at most {longest} tokens, got {self.max_length}")
            found.max_seq_length = self.max_length
        return found

    def with_adapter(self, model: Any, config: Any) -> Any:
        """Return the model with an adapter in its transformer."""
        model.add_adapter(config)
        return model

    def trainer(self, **kwargs: Any) -> Trainer:
        """Return the SentenceTransformerTrainer with the loss, and the evaluator of whatever rows it evaluates."""
        loss = self._made_loss(kwargs["model"], self.loss or self._default_loss())
        trainer: Trainer = _trainer()(**{**kwargs, "loss": loss, "compute_metrics": None})
        return trainer

    def predict(self, trainer: Trainer, rows: Dataset) -> tuple[dict[str, list[Any]], dict[str, float]]:
        """Return the cosine similarity of each row's first two texts."""
        model: Any = trainer.model
        first, second = (model.encode(list(rows[name])) for name in self._format_here()[:2])
        scores = model.similarity_pairwise(first, second)
        metrics = trainer.evaluate(rows, metric_key_prefix="test") if self._labelled else {}
        return {"prediction": [float(score) for score in scores]}, metrics

    def label_columns(self) -> list[str]:
        """Return what the data calls the columns beside the two texts."""
        return [self._named(name) for name in self._format_here()[2:]]

    def reported(self) -> frozenset[str] | None:
        """Return the loss and what the columns' evaluator reports; None where the columns cannot be read from here."""
        format_ = self._format_here()
        return ALWAYS_REPORTED | {f"eval_{name}" for name in _reported(format_)} if format_ else None

    def data_notes(self) -> list[str]:
        """Return which columns are trained, and with which loss."""
        notes = [f"{', '.join(self._format_here())}: trained with {_name(self.loss or self._default_loss())}"]
        scores = self.splits["validation"]["score"] if "score" in self.splits["validation"].column_names else [0.0]
        if min(scores) < -1 or max(scores) > 1:
            notes.append(f"scores lie between {min(scores):g} and {max(scores):g}; CosineSimilarityLoss needs -1 to 1")
        return notes

    def _format_here(self) -> tuple[str, ...]:
        """Return the columns of the prepared data, else of the files; empty where they cannot be read from here."""
        if self._splits is not None:
            return tuple(self._splits["validation"].column_names)
        try:
            found = columns(DataSpec.model_validate(getattr(self, "source", None)), self.home).get("train")
        except (InputError, OSError, ValueError, csv.Error):
            found = None
        return self._format(found[1]) if found else ()

    def _default_loss(self) -> str:
        return _DEFAULTS.get(self._format_here(), "MultipleNegativesRankingLoss")

    def _made_loss(self, model: Any, wanted: Any) -> Any:
        """Return a loss, with its options. Raises InputError for options that it does not have, or other columns."""
        losses = import_module("sentence_transformers.sentence_transformer.losses")
        name, options = next(iter(wanted.items())) if isinstance(wanted, dict) else (wanted, {})
        made = getattr(losses, name)
        known = [each for each in signature(made).parameters if each != "model"]
        if strange := [each for each in options if each not in known]:
            hint = nearest(strange[0], known) or f"; it has {', '.join(known)}"
            raise InputError(f"task.loss: {name} has no option {strange[0]}{hint}")
        if "loss" in known:
            return made(
                model, **{**options, "loss": self._made_loss(model, options.get("loss") or self._default_loss())}
            )
        fitting, here = _FITS.get(name, (PAIRS, TRIPLETS)), self._format_here()
        if here not in fitting:
            needed = " or ".join(", ".join(each) for each in fitting)
            raise InputError(f"task.loss: {name} needs the columns {needed}; the data has {', '.join(here)}")
        return made(model, **options)

    def _complaints(self, row: Mapping[str, Any], format_: tuple[str, ...]) -> Iterator[str]:
        for name in format_:
            if name in ("score", "label"):
                number, rule = _number(row[name]), "0 or 1" if name == "label" else "a finite number"
                if not math.isfinite(number) or (name == "label" and number not in (0, 1)):
                    yield f"{name} needs {rule}, got {row[name]!r}" + (
                        "; of graded similarities task.columns makes scores: {score: label}" if name == "label" else ""
                    )
            elif not isinstance(row[name], str) or not row[name].strip():
                yield f"{name} needs a text, got {row[name]!r:.60}"

    def _checked(self, row: Mapping[str, Any], number: int, *, split: str, format_: tuple[str, ...]) -> dict[str, Any]:
        super()._checked(row, number, split=split, format_=format_)
        kinds = {"score": float, "label": int}
        return {name: kinds[name](_number(row[name])) for name in format_ if name in kinds}


def _name(loss: Any) -> str:
    """Return the name of the loss that compares rows, inside one that changes it."""
    name, options = next(iter(loss.items())) if isinstance(loss, dict) else (loss, {})
    return _name(options["loss"]) if options.get("loss") else str(name)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _evaluator(rows: Dataset, batch_size: int) -> Any:
    """Return the evaluator that fits the columns of these rows."""
    evaluation: Any = import_module("sentence_transformers.sentence_transformer.evaluation")
    values: dict[str, list[Any]] = {name: list(rows[name]) for name in rows.column_names}
    options: dict[str, Any] = {"batch_size": batch_size, "write_csv": False, "similarity_fn_names": list(_SIMILARITIES)}
    if set(TRIPLETS) <= values.keys():
        return evaluation.TripletEvaluator(*(values[name] for name in TRIPLETS), **options)
    if "score" in values:
        return evaluation.EmbeddingSimilarityEvaluator(*(values[name] for name in SCORED), **options)
    if "label" in values:
        return evaluation.BinaryClassificationEvaluator(*(values[name] for name in LABELLED), **options)
    texts = dict.fromkeys([*values["positive"]])
    numbered = {text: f"d{number}" for number, text in enumerate(texts)}
    queries = {text: f"q{number}" for number, text in enumerate(dict.fromkeys(values["anchor"]))}
    relevant: dict[str, set[str]] = {}
    for anchor, positive in zip(values["anchor"], values["positive"], strict=True):
        relevant.setdefault(queries[anchor], set()).add(numbered[positive])
    by_id = [{number: text for text, number in each.items()} for each in (queries, numbered)]
    options["score_functions"] = {
        name: evaluation.SimilarityFunction.to_similarity_fn(name) for name in options.pop("similarity_fn_names")
    }
    return evaluation.InformationRetrievalEvaluator(*by_id, relevant, **options)


@cache
def _trainer() -> type[Trainer]:
    from sentence_transformers import SentenceTransformerTrainer

    class Evaluating(SentenceTransformerTrainer):
        """A Trainer that evaluates with the evaluator of the rows that it is given, validation or test."""

        def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> dict[str, float]:
            """Evaluate the loss, and the embeddings of the same rows."""
            rows = self.eval_dataset if eval_dataset is None else eval_dataset
            self.evaluator = _evaluator(rows, self.args.per_device_eval_batch_size)
            return super().evaluate(eval_dataset, *args, **kwargs)

    return Evaluating
