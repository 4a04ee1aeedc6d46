"""A model that is one line, a Trainer for it, and variants; as in a script, they go to other processes by value."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cloudpickle
import torch
from datasets import Dataset
from transformers import PretrainedConfig, PreTrainedModel, Trainer, TrainingArguments

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class LineConfig(PretrainedConfig):
    model_type = "toy-line"

    def __init__(self, a: float = 0.0, **kwargs: Any) -> None:
        self.a = a
        super().__init__(**kwargs)


class Line(PreTrainedModel):
    config_class = LineConfig

    def __init__(self, config: LineConfig) -> None:
        super().__init__(config)
        self.a = torch.nn.Parameter(torch.tensor(config.a))
        self.post_init()

    def _init_weights(self, module: torch.nn.Module) -> None:
        pass

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        loss = ((self.a * x - labels) ** 2).mean() if labels is not None else None
        return {"loss": loss, "logits": self.a * x}


class Noisy(Line):
    """Begins at random and drops half of its inputs at random, so that its value depends on when seeds are set."""

    def __init__(self, config: LineConfig) -> None:
        super().__init__(config)
        self.a = torch.nn.Parameter(torch.randn(()))

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        return super().forward(torch.nn.functional.dropout(x, 0.5, self.training), labels)


def line(trial: Any) -> Line:
    return Line(LineConfig())


def noisy(trial: Any) -> Noisy:
    return Noisy(LineConfig())


def arguments(folder: Path, kind: type[TrainingArguments] = TrainingArguments, **given: Any) -> TrainingArguments:
    asked = {"max_steps": 4, "eval_strategy": "steps", "eval_steps": 2, "use_cpu": True, "report_to": "none", **given}
    return kind(output_dir=str(folder / "out"), **asked)


def trainer(folder: Path, kind: type[Trainer] = Trainer, given: dict[str, Any] | None = None, **asked: Any) -> Trainer:
    """Return a Trainer of a class, with further arguments ``given`` to it, and those of its training."""
    data = Dataset.from_list([{"x": [float(i)], "labels": [2.0 * i]} for i in range(8)])
    parts = {"args": arguments(folder, **asked), "model_init": line, "train_dataset": data, "eval_dataset": data}
    return kind(**{**parts, **(given or {})})
