"""A task that trains nothing: for what trials cost besides training, and for trials of a given length. Knows no study."""

from __future__ import annotations

import time
from typing import Any

import torch
from datasets import Dataset, DatasetDict
from transformers import PreTrainedConfig, PreTrainedModel, Trainer
from transformers.trainer_utils import TrainOutput

from sweepkit.tasks.task import Task


class NothingConfig(PreTrainedConfig):
    """A configuration of nothing."""

    model_type = "bench-nothing"


class NothingModel(PreTrainedModel):
    """One weight."""

    config_class = NothingConfig

    def __init__(self, config: NothingConfig) -> None:
        super().__init__(config)
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.post_init()

    def _init_weights(self, module: torch.nn.Module) -> None:
        pass

    def forward(self, x: torch.Tensor, **_: Any) -> dict[str, torch.Tensor]:
        """Return a loss."""
        return {"loss": ((self.weight - x) ** 2).mean(), "logits": x}


class Idle(Trainer):
    """Waits in ``train`` for the task's seconds instead of training; evaluates nothing and reports a number."""

    seconds = 0.0

    def train(self, *_: Any, **__: Any) -> TrainOutput:
        """Wait."""
        self.callback_handler.on_train_begin(self.args, self.state, self.control)
        time.sleep(self.seconds)
        return TrainOutput(0, 0.0, {})

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Report what was to be learnt."""
        metrics = {"eval_loss": self.args.learning_rate}
        self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


class Noop(Task):
    """Nothing, for ``seconds``."""

    seconds: float = 0.0
    """How long a trial takes."""

    def data(self) -> DatasetDict:
        """Return eight numbers."""
        rows = Dataset.from_dict({"x": [[float(n)] for n in range(8)]})
        return DatasetDict({"train": rows, "validation": rows})

    def model_init(self, **config: Any) -> PreTrainedModel:
        """Return one weight."""
        return NothingModel(NothingConfig(**config))

    def trainer(self, **kwargs: Any) -> Trainer:
        """Return a Trainer that does not train."""
        trainer = Idle(**kwargs)
        trainer.seconds = self.seconds
        return trainer

    def reported(self) -> frozenset[str]:
        """Return the one metric."""
        return frozenset({"eval_loss"})
