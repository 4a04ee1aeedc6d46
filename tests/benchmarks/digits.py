"""The work that all tools are given: a tiny vision transformer on scikit-learn's digits. Knows no tool."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from transformers import (
    EvalPrediction,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    ViTConfig,
    ViTForImageClassification,
)

from sweepkit.tasks.task import Task

CONFIGURATIONS: list[dict[str, float]] = [
    {"learning_rate": rate, "weight_decay": decay} for decay in (0.0, 0.01, 0.1) for rate in (1e-4, 3e-4, 1e-3, 3e-3)
]
"""The twelve configurations that every tool trains."""

ARGUMENTS: dict[str, Any] = {
    "num_train_epochs": 3,
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 64,
    "eval_strategy": "epoch",
    "logging_steps": 10,
    "use_cpu": True,
    "seed": 42,
}
"""Arguments of every trial, whichever tool trains it; an evaluation after each epoch."""

QUIET: dict[str, Any] = {
    "save_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
}
"""What the baselines are given besides: nothing is written and nothing is printed, which is the fastest they have."""


def splits() -> DatasetDict:
    """Return 1,440 pictures to train on and 357 to validate with."""
    from sklearn.datasets import load_digits

    found = load_digits()
    pictures = (found.images / 16).astype("float32")[:, None]
    rows = Dataset.from_dict({"pixel_values": pictures.tolist(), "labels": found.target.tolist()})
    return DatasetDict({"train": rows.select(range(1440)), "validation": rows.select(range(1440, len(rows)))})


def model(**config: Any) -> PreTrainedModel:
    """Return a fresh model of some 70,000 weights."""
    shape = {"image_size": 8, "patch_size": 2, "num_channels": 1, "hidden_size": 64, "intermediate_size": 128}
    depth = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_labels": 10}
    return ViTForImageClassification(ViTConfig(**{**shape, **depth, **config}))


def model_init(_: object = None) -> PreTrainedModel:
    """Return a fresh model, as the Trainer's own ``model_init``."""
    return model()


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Return the accuracy."""
    return {"accuracy": float(np.mean(np.argmax(prediction.predictions, axis=-1) == prediction.label_ids))}


class Digits(Task):
    """The same as a task of this toolkit."""

    metrics: list[str | dict[str, dict[str, Any]]] = ["accuracy"]

    def data(self) -> DatasetDict:
        """Return the pictures."""
        return splits()

    def model_init(self, **config: Any) -> PreTrainedModel:
        """Return a fresh model."""
        return model(**config)

    def compute_metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        """Return the accuracy."""
        return accuracy(prediction)

    def trainer(self, **kwargs: Any) -> Trainer:
        """Return a Trainer that notes when its first step begins."""
        trainer = Trainer(**kwargs)
        trainer.add_callback(FirstStep(Path(kwargs["args"].output_dir).parent / "first-step"))
        return trainer


class FirstStep(TrainerCallback):
    """Writes down the time at which the first training step of whoever has this file begins."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the time, once."""
        if state.global_step == 0 and not self._file.exists():
            self._file.write_text(repr(time.time()))
