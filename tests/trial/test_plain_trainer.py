"""A trial reports what a plain Trainer with ``model_init`` reports, for every bundled metric and every format of the data."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from datasets import Dataset
from sklearn import metrics
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    ViTConfig,
    default_data_collator,
)

import toys
from by_hand import plain, reported
from sweepkit.tasks.metrics import BUNDLED

pytestmark = pytest.mark.real

Rows = dict[str, list[dict[str, Any]]]


def written(folder: Path, format_: str, rows: Rows) -> dict[str, str]:
    """Write the rows of each split and return the task's ``data``."""
    for split, part in rows.items():
        if format_ == "parquet":
            pd.DataFrame(part).to_parquet(folder / f"{split}.parquet")
        elif format_ == "json":
            (folder / f"{split}.json").write_text(json.dumps(part))
        else:
            pd.DataFrame(part).to_csv(folder / f"{split}.csv", index=False)
    if format_ == "hub":
        return {"name": str(folder)}
    return {split: str(folder / f"{split}.{format_}") for split in rows}


def of_texts(folder: Path, model: Path, rows: Rows, outputs: int, scores: Callable[[Any], dict[str, float]]) -> Any:
    """The last evaluation of a plain Trainer that reads the one text of a row, or the two."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    splits = {
        split: Dataset.from_list(
            [
                {**tokenizer(*(text for name, text in row.items() if name != "label")), "labels": row["label"]}
                for row in part
            ]
        )
        for split, part in rows.items()
    }
    kind = "regression" if outputs == 1 else "single_label_classification"

    def model_init() -> Any:
        return AutoModelForSequenceClassification.from_pretrained(model, num_labels=outputs, problem_type=kind)

    return plain(folder, model_init, splits, DataCollatorWithPadding(tokenizer), scores)


def of_classes(prediction: Any) -> dict[str, float]:
    """scikit-learn's metrics of the most likely class."""
    true, found = prediction.label_ids, prediction.predictions.argmax(-1)
    average = "binary" if prediction.predictions.shape[-1] == 2 else "macro"
    averaged = {
        name: getattr(metrics, f"{name}_score")(true, found, average=average, zero_division=0)
        for name in ("f1", "precision", "recall")
    }
    named = {f"f1_{average}": metrics.f1_score(true, found, average=average) for average in ("micro", "macro")}
    return {
        **averaged,
        **named,
        "accuracy": metrics.accuracy_score(true, found),
        "matthews_correlation": metrics.matthews_corrcoef(true, found),
    }


def of_numbers(prediction: Any) -> dict[str, float]:
    """scikit-learn's and SciPy's metrics of numbers."""
    true, found = prediction.label_ids, prediction.predictions[:, 0]
    return {
        "mse": metrics.mean_squared_error(true, found),
        "rmse": math.sqrt(metrics.mean_squared_error(true, found)),
        "mae": metrics.mean_absolute_error(true, found),
        "pearsonr": scipy.stats.pearsonr(found, true).statistic,
        "spearmanr": scipy.stats.spearmanr(found, true).statistic,
    }


def test_every_bundled_metric_is_compared_here() -> None:
    dice = np.random.default_rng(0)
    numbers = type("P", (), {"label_ids": dice.normal(size=9), "predictions": dice.normal(size=(9, 1))})
    classes = type("P", (), {"label_ids": dice.integers(0, 2, 9), "predictions": dice.normal(size=(9, 2))})
    plain = {name for name, functions in BUNDLED.items() if {"classes", "numbers"} & {*functions}}
    assert {*of_numbers(numbers), *of_classes(classes)} == plain


@pytest.mark.parametrize(("format_", "classes"), [("csv", 3), ("json", 2), ("parquet", 3), ("hub", 2)])
def test_metrics_of_classes_are_a_plain_trainers(format_: str, classes: int, project: Path, tiny_bert: Path) -> None:
    folder = project / "rows"
    folder.mkdir()
    words = ["ham", "spam", "spam now"][:classes]
    texts = {"train": toys.messages(48), "validation": toys.messages(30, seed=1)}
    numbered: Rows = {
        split: [{"text": text, "label": n % classes if n % 5 else int(label == "spam")} for n, (text, label) in part]
        for split, part in ((split, list(enumerate(part))) for split, part in texts.items())
    }
    named = {split: [{**row, "label": words[row["label"]]} for row in part] for split, part in numbered.items()}
    task = {"type": "text-classification", "model": str(tiny_bert), "data": written(folder, format_, named)}
    names = ["accuracy", "f1", "f1_micro", "f1_macro", "precision", "recall", "matthews_correlation"]
    found = reported(project, {**task, "metrics": names})
    wanted = of_texts(project, tiny_bert, numbered, classes, of_classes)
    for name in ("loss", *names):
        assert found[f"eval_{name}"] == pytest.approx(wanted[f"eval_{name}"], abs=1e-6), name


@pytest.mark.parametrize("format_", ["csv", "json", "parquet", "hub"])
def test_metrics_of_numbers_are_a_plain_trainers(format_: str, project: Path, tiny_bert: Path) -> None:
    folder = project / "rows"
    folder.mkdir()
    rows: Rows = {
        split: [
            {"text": text, "label": 0.25 * n + text.count("e")} for n, (text, _) in enumerate(toys.messages(32, seed))
        ]
        for seed, split in enumerate(("train", "validation"))
    }
    task = {"type": "text-regression", "model": str(tiny_bert), "data": written(folder, format_, rows)}
    names = ["mse", "rmse", "mae", "pearsonr", "spearmanr"]
    found = reported(project, {**task, "metrics": names})
    wanted = of_texts(project, tiny_bert, rows, 1, of_numbers)
    for name in ("loss", *names):
        assert found[f"eval_{name}"] == pytest.approx(wanted[f"eval_{name}"], abs=1e-6), name


@pytest.mark.parametrize("kind", ["text-classification", "text-regression"])
def test_pairs_of_texts_are_a_plain_trainers(kind: str, project: Path, tiny_bert: Path) -> None:
    """The second text is told apart by its token types, which is why the pair's order and the separator between count."""
    numbers = kind == "text-regression"
    rows: Rows = {
        split: [
            {
                "premise": one,
                "hypothesis": other,
                "label": 0.5 * (len(one) - len(other)) if numbers else int(len(one) > len(other)),
            }
            for (one, _), (other, _) in zip(toys.messages(40, seed), toys.messages(40, seed + 7), strict=True)
        ]
        for seed, split in enumerate(("train", "validation"))
    }
    task = {
        "type": kind,
        "model": str(tiny_bert),
        "text": ["premise", "hypothesis"],
        "data": written(project, "csv", rows),
    }
    names = ["rmse", "pearsonr"] if numbers else ["accuracy", "f1"]
    found = reported(project, {**task, "metrics": names})
    wanted = of_texts(project, tiny_bert, rows, 1 if numbers else 2, of_numbers if numbers else of_classes)
    for name in ("loss", *names):
        assert found[f"eval_{name}"] == pytest.approx(wanted[f"eval_{name}"], abs=1e-6), name


def test_perplexity_is_a_plain_trainers(project: Path) -> None:
    model = toys.tiny_gpt2(project / "gpt2")
    rows = {"train": [{"text": "in the beginning was the word " * 20}], "validation": [{"text": "the word was " * 20}]}
    data = written(project, "json", rows)
    found = reported(project, {"type": "causal-lm", "model": str(model), "data": data, "block_size": 16})
    tokenizer = AutoTokenizer.from_pretrained(model)
    splits = {}
    for split, [row] in rows.items():
        tokens = [*tokenizer(row["text"], verbose=False)["input_ids"], tokenizer.eos_token_id]
        blocks = [tokens[n : n + 16] for n in range(0, len(tokens) - 15, 16)]
        splits[split] = Dataset.from_list([{"input_ids": block, "labels": block} for block in blocks])

    def model_init() -> Any:
        return AutoModelForCausalLM.from_pretrained(model)

    wanted = plain(project, model_init, splits, default_data_collator, None)
    assert found["eval_loss"] == pytest.approx(wanted["eval_loss"], abs=1e-6)
    assert found["eval_perplexity"] == pytest.approx(math.exp(wanted["eval_loss"]), abs=1e-6 * found["eval_perplexity"])


def test_images_are_classified_as_by_a_plain_trainer(project: Path) -> None:
    dice = np.random.default_rng(0)
    rows = {
        split: [{"image": (dice.random(64) + n % 3).tolist(), "label": "abc"[n % 3]} for n in range(count)]
        for split, count in (("train", 36), ("validation", 18))
    }
    small: dict[str, Any] = {"image_size": 8, "patch_size": 4, "num_channels": 1, "hidden_size": 16}
    small |= {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = {"config": {"model_type": "vit", **small}}
    data = written(project, "parquet", rows)
    found = reported(project, {"type": "image-classification", "model": model, "data": data})
    splits = {
        split: Dataset.from_list(
            [
                {"pixel_values": np.float32(row["image"]).reshape(1, 8, 8), "labels": "abc".index(row["label"])}
                for row in part
            ]
        )
        for split, part in rows.items()
    }

    def model_init() -> Any:
        return AutoModelForImageClassification.from_config(ViTConfig(**small, num_labels=3))

    wanted = plain(project, model_init, splits, None, of_classes)
    assert {name: found[name] for name in ("eval_loss", "eval_accuracy")} == pytest.approx(
        {name: wanted[name] for name in ("eval_loss", "eval_accuracy")}, abs=1e-6
    )
