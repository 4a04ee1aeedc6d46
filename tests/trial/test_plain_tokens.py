"""Token classification reports what run_ner's steps report with a plain Trainer, and what seqeval says of its tags."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import evaluate  # noqa: F401  # as a study's process has it, before seqeval
import numpy as np
import pytest
import seqeval.metrics
from datasets import Dataset
from sklearn.metrics import accuracy_score, f1_score
from transformers import AutoModelForTokenClassification, AutoTokenizer, DataCollatorForTokenClassification

import toys
from by_hand import plain, reported

pytestmark = pytest.mark.real

Sentences = list[tuple[list[str], list[str]]]


def sentences(count: int, seed: int, *, entities: bool = True) -> Sentences:
    """Words with tags that follow from them: each spam word begins an entity, or continues one."""
    dice, found = random.Random(seed), []
    for _ in range(count):
        words = dice.choices([*toys.WORDS["spam"], *toys.WORDS["ham"], "unheard"], k=dice.randint(3, 9))
        tags = ["SPAM" if word in toys.WORDS["spam"] else "HAM" if len(word) < 5 else "O" for word in words]
        if entities:
            tags = [
                tag if tag == "O" else f"{'I' if n and tags[n - 1] == tag else 'B'}-{tag}" for n, tag in enumerate(tags)
            ]
        found.append((words, tags))
    return found


def written(folder: Path, suffix: str, rows: dict[str, Sentences]) -> dict[str, str]:
    """Write each split in a format and return the task's ``data``."""
    for split, part in rows.items():
        if suffix == "jsonl":
            text = "".join(json.dumps({"words": words, "tags": tags}) + "\n" for words, tags in part)
        else:
            blocks = ("".join(f"{w} x {t}\n" for w, t in zip(words, tags, strict=True)) for words, tags in part)
            text = "-DOCSTART- -X- O\n\n" + "\n".join(blocks)
        (folder / f"{split}.{suffix}").write_text(text)
    return {split: str(folder / f"{split}.{suffix}") for split in rows}


@pytest.mark.parametrize(("suffix", "entities"), [("jsonl", True), ("txt", False)])
def test_tags_are_scored_as_by_run_ner(suffix: str, entities: bool, project: Path, tiny_bert: Path) -> None:
    rows = {
        split: sentences(count, n, entities=entities)
        for n, (split, count) in enumerate({"train": 40, "validation": 20}.items())
    }
    task = {"type": "token-classification", "model": str(tiny_bert), "data": written(project, suffix, rows)}
    found = reported(project, task)

    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    names = sorted({tag for part in rows.values() for _, tags in part for tag in tags})

    def tokenized(words: list[str], tags: list[str]) -> dict[str, Any]:
        encoded = tokenizer(words, truncation=True, is_split_into_words=True)
        previous, label_ids = None, []
        for word in encoded.word_ids():
            label_ids.append(-100 if word is None or word == previous else names.index(tags[word]))
            previous = word
        return {**encoded, "labels": label_ids}

    splits = {split: Dataset.from_list([tokenized(*row) for row in part]) for split, part in rows.items()}

    def model_init() -> Any:
        return AutoModelForTokenClassification.from_pretrained(tiny_bert, num_labels=len(names))

    def scores(prediction: Any) -> dict[str, float]:
        predictions, true = np.argmax(prediction.predictions, axis=2), prediction.label_ids
        both = [
            [[names[n] for n in row[kept != -100]] for row, kept in zip(each, true, strict=True)]
            for each in (true, predictions)
        ]
        if not entities:
            flat = [[tag for row in each for tag in row] for each in both]
            return {"accuracy": accuracy_score(*flat), "f1": f1_score(*flat, average="macro")}
        return {
            name: getattr(seqeval.metrics, f"{name}_score")(*both) for name in ("precision", "recall", "f1", "accuracy")
        }

    wanted = plain(project, model_init, splits, DataCollatorForTokenClassification(tokenizer), scores)
    for name in ("loss", "f1", "accuracy", *(["precision", "recall"] if entities else [])):
        assert found[f"eval_{name}"] == pytest.approx(wanted[f"eval_{name}"], abs=1e-6), name
    assert found["eval_f1"] > 0.2
