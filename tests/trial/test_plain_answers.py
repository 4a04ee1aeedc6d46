"""Answers are those of run_qa's steps with a plain Trainer, scored by SQuAD's definition over the original contexts."""

from __future__ import annotations

import collections
import json
import random
import re
import string
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset, DatasetDict
from transformers import (
    AutoModelForQuestionAnswering,
    AutoTokenizer,
    DataCollatorWithPadding,
    EvalPrediction,
    TrainingArguments,
)

import toys
from by_hand import plain, reported
from sweepkit.study.errors import InputError
from sweepkit.study.study import TaskSpec
from sweepkit.tasks.load import load_task
from sweepkit.tasks.question_answering import QuestionAnswering
from sweepkit.tasks.scores import squad_exact_match, squad_f1
from sweepkit.tasks.task import Task

pytestmark = pytest.mark.real
LENGTH, STRIDE, MOST = 20, 5, 6
Rows = list[dict[str, Any]]


def rows(count: int, seed: int, *, all_answered: bool) -> Rows:
    """Contexts of which most hold two spam words in a row, the answer; some are longer than a window, some hold none."""
    dice, found = random.Random(seed), []
    for number in range(count):
        words = dice.choices([*toys.WORDS["ham"], *toys.COMMON], k=dice.randint(6, 34))
        answers: dict[str, Any] = {"text": [], "answer_start": []}
        if all_answered or number % 4:
            place, answer = dice.randrange(len(words)), " ".join(dice.choices(toys.WORDS["spam"], k=2))
            words.insert(place, answer)
            start = len(" ".join([*words[:place], ""]))
            answers = {"text": [answer, answer.split()[0]], "answer_start": [start, start]}
        question = "  call now"
        found.append({"id": str(number), "question": question, "context": " ".join(words), "answers": answers})
    return found


def written(folder: Path, format_: str, splits: dict[str, Rows]) -> dict[str, Any]:
    """Write each split in a format and return the task's options."""
    suffix = {"squad": "json"}.get(format_, format_)
    for split, part in splits.items():
        file = folder / f"{split}.{suffix}"
        if format_ == "jsonl":
            file.write_text("".join(json.dumps(row) + "\n" for row in part))
        elif format_ == "squad":
            pairs = [(row, zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True)) for row in part]
            told = [(row, [{"text": text, "answer_start": start} for text, start in each]) for row, each in pairs]
            qas = [
                {
                    "context": r["context"],
                    "qas": [{**{k: r[k] for k in ("id", "question")}, "answers": a, "is_impossible": not a}],
                }
                for r, a in told
            ]
            file.write_text(json.dumps({"version": "v2.0", "data": [{"title": "toy", "paragraphs": qas}]}, indent=1))
        elif format_ == "parquet":
            pd.DataFrame(part).to_parquet(file)
        else:
            flat = [
                {
                    **row,
                    "answers": (row["answers"]["text"] or [""])[0],
                    "at": (row["answers"]["answer_start"] or [""])[0],
                }
                for row in part
            ]
            pd.DataFrame(flat).to_csv(file, index=False)
    data = {"data": {split: str(folder / f"{split}.{suffix}") for split in splits}}
    return {**data, **({"answer_start": "at"} if format_ == "csv" else {})}


def normalize_answer(text: str) -> str:
    text = "".join(ch for ch in text.lower() if ch not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def by_squad(right: list[list[str]], said: list[str]) -> dict[str, float]:
    """SQuAD 2.0's evaluation script, as fractions."""

    def f1(gold: str, guess: str) -> float:
        a, b = normalize_answer(gold).split(), normalize_answer(guess).split()
        same = sum((collections.Counter(a) & collections.Counter(b)).values())
        if not a or not b:
            return float(a == b)
        precision, recall = same / len(b), same / len(a)
        return 2 * precision * recall / (precision + recall) if same else 0.0

    golds = [[text for text in each if normalize_answer(text)] or [""] for each in right]
    pairs = list(zip(golds, said, strict=True))
    exact = [max(float(normalize_answer(g) == normalize_answer(s)) for g in gold) for gold, s in pairs]
    return {
        "exact_match": float(np.mean(exact)),
        "f1": float(np.mean([max(f1(g, s) for g in gold) for gold, s in pairs])),
    }


def features(tokenizer: Any, part: Rows) -> tuple[Dataset, list[dict[str, Any]]]:
    """The features of transformers' question answering guide, and what finds their answers again."""
    inputs = tokenizer(
        [row["question"].lstrip() for row in part],
        [row["context"] for row in part],
        max_length=LENGTH,
        truncation="only_second",
        stride=STRIDE,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    found, places = [], []
    for i, offset in enumerate(inputs["offset_mapping"]):
        example = inputs["overflow_to_sample_mapping"][i]
        answers, sequence_ids = part[example]["answers"], inputs.sequence_ids(i)
        context_start = sequence_ids.index(1)
        context_end = len(sequence_ids) - 1 - sequence_ids[::-1].index(1)
        start = end = 0
        if answers["text"]:
            start_char = answers["answer_start"][0]
            end_char = start_char + len(answers["text"][0])
            if not (offset[context_start][0] > start_char or offset[context_end][1] < end_char):
                idx = context_start
                while idx <= context_end and offset[idx][0] <= start_char:
                    idx += 1
                start = idx - 1
                idx = context_end
                while idx >= context_start and offset[idx][1] >= end_char:
                    idx -= 1
                end = idx + 1
        found.append({name: inputs[name][i] for name in ("input_ids", "attention_mask", "token_type_ids")})
        found[-1] |= {"start_positions": start, "end_positions": end}
        offset = [o if sequence_ids[k] == 1 else None for k, o in enumerate(offset)]
        places.append({"example": example, "offset_mapping": offset})
    return Dataset.from_list(found), places


def postprocess(part: Rows, places: list[dict[str, Any]], predictions: Any, null: bool, n_best: int = 20) -> list[str]:
    """The text of each example, by the rules of run_qa's postprocess_qa_predictions."""
    texts = []
    for number, row in enumerate(part):
        prelim, min_null = [], None
        for index, place in enumerate(places):
            if place["example"] != number:
                continue
            offsets = place["offset_mapping"]
            start_logits, end_logits = (each[index][: len(offsets)] for each in predictions)
            null_score = start_logits[0] + end_logits[0]
            min_null = null_score if min_null is None or min_null > null_score else min_null
            for s in np.argsort(start_logits)[-1 : -n_best - 1 : -1].tolist():
                for e in np.argsort(end_logits)[-1 : -n_best - 1 : -1].tolist():
                    if offsets[s] is None or offsets[e] is None or e < s or e - s + 1 > MOST:
                        continue
                    prelim.append((start_logits[s] + end_logits[e], row["context"][offsets[s][0] : offsets[e][1]]))
        score, text = max(prelim, key=lambda each: each[0], default=(-np.inf, ""))
        texts.append("" if null and min_null is not None and min_null - score > 0 else text)
    return texts


@pytest.mark.parametrize(("format_", "all_answered"), [("jsonl", False), ("parquet", True)])
def test_answers_are_found_and_scored_as_by_run_qa(
    format_: str, all_answered: bool, project: Path, tiny_bert: Path
) -> None:
    splits = {
        split: rows(count, n, all_answered=all_answered)
        for n, (split, count) in enumerate({"train": 40, "validation": 16}.items())
    }
    task = {"type": "question-answering", "model": str(tiny_bert), **written(project, format_, splits)}
    task |= {"max_length": LENGTH, "doc_stride": STRIDE, "max_answer_length": MOST}
    mine = reported(project, task, per_device_train_batch_size=8)

    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    (train, _), (validation, places) = (features(tokenizer, part) for part in splits.values())
    assert len(validation) > len(splits["validation"])

    def scores(prediction: EvalPrediction) -> dict[str, float]:
        said = postprocess(splits["validation"], places, prediction.predictions, null=not all_answered)
        return by_squad([row["answers"]["text"] for row in splits["validation"]], said)

    wanted = plain(
        project,
        lambda: AutoModelForQuestionAnswering.from_pretrained(tiny_bert),
        {"train": train, "validation": validation},
        DataCollatorWithPadding(tokenizer),
        scores,
        per_device_train_batch_size=8,
    )
    for name in ("loss", "exact_match", "f1"):
        assert mine[f"eval_{name}"] == pytest.approx(wanted[f"eval_{name}"], abs=1e-6), name
    assert mine["eval_f1"] > 0.05


@pytest.mark.parametrize("format_", ["squad", "parquet", "csv"])
def test_every_format_gives_the_same_windows(format_: str, tmp_path: Path, tiny_bert: Path) -> None:
    part = rows(12, 1, all_answered=False)
    for each in part:
        each["answers"] = {name: values[:1] for name, values in each["answers"].items()}
    plainly, other = ({"train": part, "validation": part[:4]} for _ in range(2))
    found = [
        made(tmp_path, tiny_bert, [], **written(tmp_path, each, splits)).data()
        for each, splits in (("jsonl", plainly), (format_, other))
    ]
    mine, wanted = ({split: part.to_dict() for split, part in each.items()} for each in found)
    assert mine == wanted


def made(home: Path, model: Path, part: Rows, **spec: Any) -> Task:
    (home / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    options = {"model": str(model), "data": {"path": "m.jsonl"}, "max_length": LENGTH, "doc_stride": STRIDE, **spec}
    return load_task(TaskSpec(type="question-answering", **options), home)


def row(answer: Any, question: str = "which call", context: str = "you win cash now") -> dict[str, Any]:
    return {"question": question, "context": context, "answers": answer}


GOOD = row({"text": ["cash"], "answer_start": [8]})


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            row({"text": ["cash"], "answer_start": [7]}),
            "row 2 of train says that 'cash' begins at character 7 .* where ' cas' stands",
        ),
        (row({"text": ["cash"], "answer_start": [-1]}), "row 2 of train says that 'cash' begins at character -1"),
        (
            row({"text": ["cash", "win"], "answer_start": [8]}),
            "row 2 of train holds .* needed are lists text and answer_start",
        ),
        (row({"text": ["cash"], "answer_start": [8]}, question=" "), "task.question: row 2 of train is blank"),
        (row(None, context=" "), "task.context: row 2 of train is blank"),
        (row({"text": ["cash"]}), "row 2 of train holds .* needed are lists text and answer_start"),
        (
            row({"text": ["cash"], "answer_start": [8]}, question="x" * 30),
            "the question in row 2 of train has 30 tokens; .*no room",
        ),
        (
            row({"text": [], "answer_start": []}, context=None),
            "1 of 2 rows of train have no context, the first is row 2",
        ),  # type: ignore[arg-type]
    ],
)
def test_answers_that_cannot_be_found_are_refused(bad: Any, message: str, tmp_path: Path, tiny_bert: Path) -> None:
    with pytest.raises(InputError, match=message):
        made(tmp_path, tiny_bert, [GOOD, bad], validation=0.01).data()


def test_data_without_any_answer_is_refused(tmp_path: Path, tiny_bert: Path) -> None:
    with pytest.raises(InputError, match=r"task.answers: no question of train has an answer"):
        made(tmp_path, tiny_bert, [row({"text": [], "answer_start": []})] * 4).data()


def test_an_answer_given_as_a_text_needs_its_place(tmp_path: Path, tiny_bert: Path) -> None:
    with pytest.raises(InputError, match=r"task.answers: row 1 of train holds 'cash'; needed are .* task.answer_start"):
        made(tmp_path, tiny_bert, [row("cash")] * 3).data()


def test_a_test_split_with_secret_answers_is_left_out(tmp_path: Path, tiny_bert: Path) -> None:
    none: dict[str, Any] = {"text": [], "answer_start": []}
    for split, answers in (("train", GOOD["answers"]), ("validation", none), ("test", none)):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(row(answers)) + "\n")
    data = {split: f"{split}.jsonl" for split in ("train", "validation", "test")}
    task = made(tmp_path, tiny_bert, [], data=data)
    assert [*task.splits] == ["train", "validation"]
    assert task.data_notes()[1] == (
        "1 questions of validation are read in 1 windows of at most 20 tokens; 1 have no answer"
    )


def test_values_do_not_depend_on_the_order_of_evaluation_or_its_batches(tmp_path: Path, tiny_bert: Path) -> None:
    """Windows carry their number, so that sorting by length, or evaluating some of them, mixes no answers up."""
    task = made(tmp_path, tiny_bert, rows(40, 3, all_answered=True), validation=0.5)
    model = AutoModelForQuestionAnswering.from_pretrained(tiny_bert)
    values = {}
    for name, more in {
        "plain": {},
        "sorted": {"train_sampling_strategy": "group_by_length"},
        "in batches": {"eval_do_concat_batches": False},
    }.items():
        arguments = TrainingArguments(
            output_dir=str(tmp_path / "out"), report_to="none", use_cpu=True, per_device_eval_batch_size=3, **more
        )
        trainer = task.trainer(
            model=model,
            args=arguments,
            train_dataset=task.splits["train"],
            eval_dataset=task.splits["validation"],
            data_collator=task.data_collator(),
            compute_metrics=task.compute_metrics,
        )
        values[name] = {key: trainer.evaluate()[f"eval_{key}"] for key in ("f1", "exact_match")}
    assert values["sorted"] == values["in batches"] == values["plain"]
    assert values["plain"]["f1"] > 0


def test_scores_are_squads() -> None:
    right = [["the Old cat.", "Dog"], [], ["a"], ["x y", "the"], ["Wien, Austria"], ["1.5"]]
    said = ["old cat", "", "", "y z", "Austria", "1,5"]
    for guesses in (said, said[::-1], [""] * 6):
        wanted = by_squad(right, guesses)
        assert squad_exact_match(right, guesses) == pytest.approx(wanted["exact_match"])
        assert squad_f1(right, guesses) == pytest.approx(wanted["f1"])


class Quiz(QuestionAnswering):
    """A Task of one's own that reads another format: the answer stands in brackets in its context."""

    def rows(self) -> DatasetDict:
        lines = [line.split("|") for line in (self.home / "quiz.txt").read_text().splitlines()]
        marks = [re.search(r"\[(.*)\]", text) for _, text in lines]
        answers = [[{"text": mark[1], "answer_start": mark.start()}] if mark else [] for mark in marks]
        contexts = [re.sub(r"[\[\]]", "", text) for _, text in lines]
        found = {"question": [question for question, _ in lines], "context": contexts, "answers": answers}
        return DatasetDict({"train": Dataset.from_dict(found)})


def test_a_task_of_ones_own_reads_another_format(tmp_path: Path, tiny_bert: Path) -> None:
    (tmp_path / "quiz.txt").write_text("which|you win [free cash] now\n" * 5)
    quiz = Quiz.model_validate({"model": str(tiny_bert), "data": {"path": "quiz.txt"}, "max_length": 16})
    quiz._home = tmp_path
    window = quiz.splits["validation"][0]
    tokenizer = quiz.processing_class()
    assert tokenizer.decode(window["input_ids"][window["start_positions"] : window["end_positions"] + 1]) == "free cash"
