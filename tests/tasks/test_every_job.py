"""Eight jobs from rows to a tuned model: each best trial has the value that the job's library gives by hand.

Shown with ``-s``: the lines of the study, the seconds of ``sweep run``, the value and its distance from the one by hand.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from sklearn.metrics import accuracy_score, f1_score, root_mean_squared_error
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainingArguments,
)

import toys
from making import sweep

pytestmark = [pytest.mark.real, pytest.mark.slow]

STUDY = """\
name: job
task: {{type: {kind}, model: {model}, data: {{train: train.jsonl, validation: validation.jsonl}}{more}}}
training: {{num_train_epochs: 6, use_cpu: true, seed: 5{training}}}
objective: {{metric: {metric}, direction: {direction}}}
space: {{learning_rate: {{low: 1e-4, high: 2e-2, log: true}}{space}}}
budget: {{trials: 6}}
"""
FIXED = {"num_train_epochs": 6, "use_cpu": True, "seed": 5}
Row = dict[str, Any]
Splits = dict[str, Dataset]
Best = list[dict[str, float]]


def by_trainer(
    model_init: Callable[[], Any],
    splits: Splits,
    collator: Any,
    scores: Callable[[Any], dict[str, float]] | None,
    values: Mapping[str, Any],
    trainer: Any = Trainer,
    arguments: Any = TrainingArguments,
) -> Best:
    """The evaluations of a Trainer with ``model_init``, one after each epoch."""
    made = trainer(
        model_init=model_init,
        args=arguments(
            "plain", eval_strategy="epoch", save_strategy="no", report_to="none", disable_tqdm=True, **FIXED, **values
        ),
        train_dataset=splits["train"],
        eval_dataset=splits["validation"],
        data_collator=collator,
        compute_metrics=scores,
    )
    made.train()
    return [entry for entry in made.state.log_history if "eval_loss" in entry]


def by_sequences(outputs: int, *texts: str) -> Callable[[Path, Mapping[str, list[Row]], Mapping[str, Any]], Best]:
    """A model with so many outputs that reads these columns of a row."""

    def run(model: Path, rows: Mapping[str, list[Row]], values: Mapping[str, Any]) -> Best:
        tokenizer = AutoTokenizer.from_pretrained(model)
        names = sorted({row["label"] for row in rows["train"]})

        def made(row: Row) -> Row:
            return {
                **tokenizer(*(row[text] for text in texts)),
                "labels": row["label"] if outputs == 1 else names.index(row["label"]),
            }

        def scores(prediction: Any) -> dict[str, float]:
            found, true = prediction.predictions, prediction.label_ids
            if outputs == 1:
                return {"rmse": root_mean_squared_error(true, found[:, 0])}
            return {"accuracy": accuracy_score(true, found.argmax(-1))}

        splits = {split: Dataset.from_list([made(row) for row in part]) for split, part in rows.items()}
        kind = "regression" if outputs == 1 else "single_label_classification"
        return by_trainer(
            lambda: AutoModelForSequenceClassification.from_pretrained(model, num_labels=outputs, problem_type=kind),
            splits,
            DataCollatorWithPadding(tokenizer),
            scores,
            values,
        )

    return run


def by_tokens(model: Path, rows: Mapping[str, list[Row]], values: Mapping[str, Any]) -> Best:
    tokenizer = AutoTokenizer.from_pretrained(model)
    names = ["HAM", "O", "SPAM"]

    def made(row: Row) -> Row:
        encoded = tokenizer(row["words"], is_split_into_words=True)
        words = encoded.word_ids()
        first = [word is not None and word not in words[:n] for n, word in enumerate(words)]
        labels = [names.index(row["tags"][w]) if new else -100 for w, new in zip(words, first, strict=True)]
        return {**encoded, "labels": labels}

    def scores(prediction: Any) -> dict[str, float]:
        kept = prediction.label_ids != -100
        found = prediction.predictions.argmax(-1)
        return {"f1": f1_score(prediction.label_ids[kept], found[kept], average="macro")}

    return by_trainer(
        lambda: AutoModelForTokenClassification.from_pretrained(model, num_labels=len(names)),
        {split: Dataset.from_list([made(row) for row in part]) for split, part in rows.items()},
        DataCollatorForTokenClassification(tokenizer),
        scores,
        values,
    )


def by_texts(model: Path, rows: Mapping[str, list[Row]], values: Mapping[str, Any]) -> Best:
    from evaluate import load  # noqa: F401  # as a study's process has it
    from rouge_score.rouge_scorer import RougeScorer

    tokenizer = AutoTokenizer.from_pretrained(model)
    scorer = RougeScorer(["rougeL"], use_stemmer=True)

    def made(row: Row) -> Row:
        return {**tokenizer(row["source"]), "labels": tokenizer(text_target=row["target"])["input_ids"]}

    def scores(prediction: Any) -> dict[str, float]:
        ids = [each.copy() for each in (prediction.label_ids, prediction.predictions)]
        for each in ids:
            each[each == -100] = tokenizer.pad_token_id
        pairs = zip(*(tokenizer.batch_decode(each, skip_special_tokens=True) for each in ids), strict=True)
        each = [scorer.score(true.strip(), found.strip())["rougeL"].fmeasure for true, found in pairs]
        return {"rougeL": sum(each) / len(each)}

    return by_trainer(
        lambda: AutoModelForSeq2SeqLM.from_pretrained(model),
        {split: Dataset.from_list([made(row) for row in part]) for split, part in rows.items()},
        DataCollatorForSeq2Seq(tokenizer, model=AutoModelForSeq2SeqLM.from_pretrained(model)),
        scores,
        {**values, "predict_with_generate": True, "generation_max_length": 12},
        Seq2SeqTrainer,
        Seq2SeqTrainingArguments,
    )


def by_answers(model: Path, rows: Mapping[str, list[Row]], values: Mapping[str, Any]) -> Best:
    tokenizer = AutoTokenizer.from_pretrained(model)

    def made(row: Row) -> Row:
        encoded = tokenizer(row["question"], row["context"])
        [start], [answer] = row["answers"]["answer_start"], row["answers"]["text"]
        ends = {
            "start_positions": encoded.char_to_token(start, sequence_index=1),
            "end_positions": encoded.char_to_token(start + len(answer) - 1, sequence_index=1),
        }
        return {**encoded, **ends}

    return by_trainer(
        lambda: AutoModelForQuestionAnswering.from_pretrained(model),
        {split: Dataset.from_list([made(row) for row in part]) for split, part in rows.items()},
        DataCollatorWithPadding(tokenizer),
        None,
        values,
    )


def by_embeddings(model: Path, rows: Mapping[str, list[Row]], values: Mapping[str, Any]) -> Best:
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator
    from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss

    made = SentenceTransformer(str(model))
    columns = ([row[name] for row in rows["validation"]] for name in ("sentence1", "sentence2", "score"))
    arguments = SentenceTransformerTrainingArguments(
        "plain", eval_strategy="epoch", save_strategy="no", report_to="none", disable_tqdm=True, **FIXED, **values
    )
    trainer = SentenceTransformerTrainer(
        model=made,
        args=arguments,
        train_dataset=Dataset.from_list(list(rows["train"])),
        eval_dataset=Dataset.from_list(list(rows["validation"])),
        loss=CosineSimilarityLoss(made),
        evaluator=EmbeddingSimilarityEvaluator(*columns),
    )
    trainer.train()
    return [entry for entry in trainer.state.log_history if "eval_loss" in entry]


def by_trl(model: Path, rows: Mapping[str, list[Row]], values: Mapping[str, Any]) -> Best:
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    adapter = {name.removeprefix("peft."): value for name, value in values.items() if name.startswith("peft.")}
    given = {name: value for name, value in values.items() if not name.startswith("peft.")}
    trainer = SFTTrainer(
        model=str(model),
        args=SFTConfig(
            "plain", eval_strategy="epoch", save_strategy="no", report_to="none", disable_tqdm=True, **FIXED, **given
        ),
        train_dataset=Dataset.from_list(list(rows["train"])),
        eval_dataset=Dataset.from_list(list(rows["validation"])),
        peft_config=LoraConfig(task_type="CAUSAL_LM", **adapter),
    )
    trainer.train()
    return [entry for entry in trainer.state.log_history if "eval_loss" in entry]


def of_messages(row: Callable[[str, str, random.Random], Row]) -> dict[str, list[Row]]:
    """Rows of both splits, made of texts that are ham or spam."""
    dice = random.Random(0)
    counts = {"train": 96, "validation": 40}
    return {s: [row(*each, dice) for each in toys.messages(n, k)] for k, (s, n) in enumerate(counts.items())}


def answered(text: str, label: str, dice: random.Random) -> Row:
    word = next(each for each in text.split() if each in toys.WORDS[label])
    answers = {"text": [word], "answer_start": [f" {text} ".index(f" {word} ")]}
    return {"id": text, "question": "which word is it", "context": text, "answers": answers}


def tagged(text: str, label: str, dice: random.Random) -> Row:
    words = text.split()
    return {"words": words, "tags": [label.upper() if word in toys.WORDS[label] else "O" for word in words]}


def alike(text: str, label: str, dice: random.Random) -> Row:
    other = dice.choice([*toys.WORDS])
    second = " ".join(dice.choices(toys.WORDS[other], k=3))
    return {"sentence1": text, "sentence2": second, "score": 0.9 if other == label else 0.1}


@dataclass(frozen=True)
class _Job:
    kind: str
    metric: str
    rows: Callable[[str, str, random.Random], Row]
    by_hand: Callable[[Path, Mapping[str, list[Row]], Mapping[str, Any]], Best]
    model: Callable[[Path], Path] = toys.tiny_bert
    more: str = ""
    training: str = ""
    space: str = ""


JOBS = {
    "classification": _Job(
        "text-classification",
        "eval_accuracy",
        lambda text, label, dice: {"text": text, "label": label},
        by_sequences(2, "text"),
    ),
    "pairs": _Job(
        "text-classification",
        "eval_accuracy",
        lambda text, label, dice: {
            "one": text,
            "two": (other := dice.choice([*toys.WORDS])) and " ".join(dice.choices(toys.WORDS[other], k=3)),
            "label": f"then {other}",
        },
        by_sequences(2, "one", "two"),
        more=", text: [one, two]",
    ),
    "regression": _Job(
        "text-regression",
        "eval_rmse",
        lambda text, label, dice: {"text": text, "label": len(text) / 10 + (label == "spam")},
        by_sequences(1, "text"),
        more=", metrics: [rmse]",
    ),
    "tokens": _Job("token-classification", "eval_f1", tagged, by_tokens),
    "seq2seq": _Job(
        "seq2seq",
        "eval_rougeL",
        lambda text, label, dice: {"source": text, "target": "call now" if label == "spam" else "see you today"},
        by_texts,
        toys.tiny_t5,
        ", max_target_length: 12",
    ),
    "answers": _Job("question-answering", "eval_loss", answered, by_answers),
    "embeddings": _Job(
        "sentence-similarity",
        "eval_spearman_cosine",
        alike,
        by_embeddings,
        more=", loss: CosineSimilarityLoss",
    ),
    "sft": _Job(
        "sft",
        "eval_loss",
        lambda text, label, dice: {"prompt": f"{text} is", "completion": f" {label}"},
        by_trl,
        toys.tiny_gpt2,
        training=", max_length: 64, peft.fan_in_fan_out: true",
        space=", peft.r: {choices: [4, 8]}",
    ),
}


@pytest.mark.parametrize("name", JOBS)
def test_the_best_trial_has_the_value_of_its_library(name: str, project: Path) -> None:
    job = JOBS[name]
    rows = of_messages(job.rows)
    for split, part in rows.items():
        (project / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    direction = "minimize" if job.metric in ("eval_loss", "eval_rmse") else "maximize"
    model = job.model(project / "model")
    study = STUDY.format(**{**vars(job), "model": "./model", "direction": direction})
    (project / "study.yaml").write_text(study)
    began = time.monotonic()
    run = sweep("run", "study.yaml", cwd=project)
    said, _ = run.communicate(timeout=600)
    seconds = time.monotonic() - began
    assert run.returncode == 0, said
    best = sweep("best", "job", "--json", cwd=project)
    found = json.loads(best.communicate(timeout=120)[0])["best"]
    values = {k: v for k, v in found["params"].items() if k not in FIXED and not k.startswith("task.")}
    history = job.by_hand(model, rows, values)
    value = (min if direction == "minimize" else max)(entry[job.metric] for entry in history)
    lines, distance = study.count("\n"), abs(found["value"] - value)
    sys.stdout.write(
        f"\n{name}: {lines} lines, {seconds:.0f} s, {job.metric} {found['value']:.6f}, by hand {value:.6f}, "
    )
    sys.stdout.write(f"difference {distance:.1e}\n")
    assert found["value"] == pytest.approx(value, abs=1e-6)
