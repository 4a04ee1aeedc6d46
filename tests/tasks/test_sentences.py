"""Sentence embeddings: values are those of the script that sentence-transformers documents, for each format of the rows."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

import toys
from making import spec
from sweepkit.check.study_file import load_study
from sweepkit.study.errors import InputError
from sweepkit.study.paths import BEST
from sweepkit.study.study import TaskSpec
from sweepkit.tasks.load import load_task
from sweepkit.trial.inspect import inspect
from sweepkit.trial.objective import evaluate_on_test
from trained import RATE, TRAINING, Rows, last, ran, refused, retrained, study_file, written

pytestmark = pytest.mark.real

METRICS = {
    "pairs": "eval_cosine_ndcg@10",
    "triplets": "eval_cosine_accuracy",
    "scores": "eval_spearman_cosine",
    "labels": "eval_cosine_ap",
}


def rows_of(folder: Path, format_: str, counts: dict[str, int] | None = None) -> Rows:
    """Write rows of both splits; return them."""
    rows = {}
    for seed, (split, count) in enumerate((counts or {"train": 32, "validation": 12}).items()):
        dice, found = random.Random(seed), []
        for text, label in toys.messages(count, seed=seed):
            labels = sorted(toys.WORDS, key=lambda each: each != label)
            alike, other = (" ".join(dice.choices(toys.WORDS[each], k=3)) for each in labels)
            row: dict[str, Any] = {"anchor": text, "positive": alike, "negative": other}
            if format_ in ("scores", "labels"):
                same = dice.random() < 0.5
                number = {"score": 1.0 if same else 0.25} if format_ == "scores" else {"label": int(same)}
                row = {"sentence1": text, "sentence2": alike if same else other, **number}
            found.append({name: row[name] for name in row if name != "negative" or format_ == "triplets"})
        rows[split] = found
    written(folder, rows)
    return rows


def by_hand(folder: Path, model: Path, rows: Rows, loss: Any, evaluator: Any, adapter: Any = None) -> Any:
    """The last evaluation of the script that sentence-transformers documents, with ``model_init`` for an adapter."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )

    def model_init() -> Any:
        made = SentenceTransformer(str(model))
        made.add_adapter(adapter)
        return made

    made = SentenceTransformer(str(model)) if adapter is None else None
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder / "plain"),
        eval_strategy="epoch",
        save_strategy="no",
        report_to="none",
        learning_rate=RATE,
        **TRAINING,
    )
    train, validation = (Dataset.from_list(list(rows[split])) for split in ("train", "validation"))
    trainer = SentenceTransformerTrainer(
        model=made,
        model_init=None if made else model_init,
        args=arguments,
        train_dataset=train,
        eval_dataset=validation,
        loss=loss(made) if made else loss,
        evaluator=evaluator(validation),
    )
    trainer.train()
    return [entry for entry in trainer.state.log_history if "eval_loss" in entry][-1]


def documented(format_: str) -> tuple[Any, Any]:
    """The loss and the evaluator of a format."""
    from sentence_transformers.sentence_transformer import evaluation, losses

    if format_ == "triplets":
        return (
            losses.TripletLoss,
            lambda rows: evaluation.TripletEvaluator(
                list(rows["anchor"]), list(rows["positive"]), list(rows["negative"])
            ),
        )
    if format_ == "scores":
        return (
            losses.CosineSimilarityLoss,
            lambda rows: evaluation.EmbeddingSimilarityEvaluator(
                list(rows["sentence1"]), list(rows["sentence2"]), list(rows["score"])
            ),
        )
    if format_ == "labels":
        return (
            losses.ContrastiveLoss,
            lambda rows: evaluation.BinaryClassificationEvaluator(
                list(rows["sentence1"]), list(rows["sentence2"]), list(rows["label"])
            ),
        )
    return (
        lambda model: losses.MultipleNegativesRankingLoss(model, scale=10.0),
        lambda rows: evaluation.InformationRetrievalEvaluator(
            dict(enumerate(rows["anchor"])),
            {str(n): text for n, text in enumerate(rows["positive"])},
            {
                n: {str(k) for k, text in enumerate(rows["positive"]) if text == rows["positive"][n]}
                for n in range(len(rows))
            },
        ),
    )


LOSSES: dict[str, Any] = {
    "pairs": {"MultipleNegativesRankingLoss": {"scale": 10.0}},
    "triplets": "TripletLoss",
    "scores": "CosineSimilarityLoss",
    "labels": None,
}


@pytest.mark.parametrize("format_", METRICS)
def test_embeddings_report_what_sentence_transformers_reports(
    format_: str, project: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from peft import LoraConfig
    from sentence_transformers import SentenceTransformer

    rows = rows_of(project, format_)
    adapted = format_ == "labels"
    space = {"peft.r": {"choices": [4]}} if adapted else {}
    task = {} if LOSSES[format_] is None else {"loss": LOSSES[format_]}
    study, row, log = ran(
        study_file(project, "sentence-similarity", tiny_bert, METRICS[format_], task=task, space=space)
    )
    loss, evaluator = documented(format_)
    adapter = LoraConfig(task_type="FEATURE_EXTRACTION", r=4) if adapted else None
    wanted, found = by_hand(project, tiny_bert, rows, loss, evaluator, adapter), last(log)
    for name in (METRICS[format_], "eval_loss"):
        assert found[name] == pytest.approx(wanted[name], abs=1e-6), name
    assert log.started is not None
    assert {"learning_rate", "per_device_train_batch_size", *space} <= set(log.started.proved)
    assert SentenceTransformer(str(study.place.trial(0) / BEST)).encode(["free prize"]).shape == (1, 32)
    if format_ == "scores":
        again = retrained(study, row, project / "exported", capsys)
        assert (again["metric"], again["value"]) == (METRICS[format_], pytest.approx(row.value, abs=1e-6))


def pair(**values: Any) -> dict[str, Any]:
    return {"sentence1": "free prize", "sentence2": "win cash", **values}


@pytest.mark.parametrize(
    ("rows", "keys", "message"),
    [
        (
            [{"a": "b"}],
            {},
            "task.data train.jsonl: the columns are a; needed are anchor, positive, negative or anchor, pos",
        ),
        ([pair(score=1), pair(score="high")], {}, "row 2 of train: score needs a finite number, got 'high'"),
        (
            [pair(label=1), pair(label=3)],
            {},
            "row 2 of train: label needs 0 or 1, got '3'; of graded similarities task.colu",
        ),
        ([{"anchor": "a", "positive": " "}], {}, "row 1 of train: positive needs a text, got ' '"),
        ([pair(score=1)], {"metric": "eval_spearman"}, "objective.metric"),
        ([pair(score=1)], {"metric": "eval_cosine_ap"}, "objective.metric"),
        ([pair(score=1)], {"task": {"loss": "CoSentLoss"}}, "did you mean CoSENTLoss?"),
        ([pair(score=1)], {"space": {"task.loss": {"choices": ["CoSENTLoss", "Cosine"]}}}, "space.task.loss"),
        ([pair(score=1)], {"task": {"metrics": ["f1"]}}, "and no other metric, got f1"),
    ],
)
def test_what_cannot_be_embedded_is_refused(
    project: Path, tiny_bert: Path, rows: list[dict[str, Any]], keys: dict[str, Any], message: str
) -> None:
    assert message in refused(project, "sentence-similarity", tiny_bert, rows, **keys)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (
            "ContrastiveLoss",
            "ContrastiveLoss needs the columns sentence1, sentence2, label; the data has anchor, positive",
        ),
        ({"MultipleNegativesRankingLoss": {"scales": 3}}, "has no option scales; did you mean scale?"),
        ({"MatryoshkaLoss": {"matryoshka_dims": [32, 16]}}, ""),
    ],
)
def test_a_loss_is_made_of_its_options_and_fits_the_columns(
    loss: Any, message: str, project: Path, tiny_bert: Path
) -> None:
    rows_of(project, "pairs")
    file = study_file(project, "sentence-similarity", tiny_bert, METRICS["pairs"], task={"loss": loss})
    found = inspect(load_study(file).study, spec(project, 0))
    assert [(where, message in said) for where, said in found.problems] == ([("task", True)] if message else [])
    assert message or found.micro_batch_matters


def test_a_length_that_the_model_does_not_read_is_refused(project: Path, tiny_bert: Path) -> None:
    task = {"type": "sentence-similarity", "model": str(tiny_bert), "data": {"path": "rows.csv"}}
    made: Any = load_task(TaskSpec.model_validate({**task, "max_length": 32}), project).model_init()
    assert made.max_seq_length == 32
    with pytest.raises(InputError, match=r"task\.max_length: the model reads at most 64 tokens, got 65"):
        load_task(TaskSpec.model_validate({**task, "max_length": 65}), project).model_init()


def test_the_test_set_is_what_is_evaluated_on_it(project: Path, tiny_bert: Path) -> None:
    rows = rows_of(project, "scores", {"train": 24, "validation": 12, "test": 16})
    data = {split: f"{split}.jsonl" for split in rows}
    task = {"data": data, "loss": "CosineSimilarityLoss"}
    study, _, log = ran(study_file(project, "sentence-similarity", tiny_bert, METRICS["scores"], task=task))
    best = study.place.trial(0) / BEST
    found = evaluate_on_test(study, spec(project, 1, {"learning_rate": RATE}), str(best))
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

    part = [[row[name] for row in rows["test"]] for name in ("sentence1", "sentence2", "score")]
    wanted = EmbeddingSimilarityEvaluator(*part)(SentenceTransformer(str(best)))
    assert found["metrics"]["test_spearman_cosine"] == pytest.approx(wanted["spearman_cosine"], abs=1e-6)
    assert found["metrics"]["test_spearman_cosine"] != last(log)["eval_spearman_cosine"] and found["rows"] == 16
