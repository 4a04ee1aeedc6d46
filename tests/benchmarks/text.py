"""A language model on made-up words, whose tokenising is counted. Knows no study."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel, Trainer, TrainerCallback

from sweepkit.tasks.task import Task


class Words(Task):
    """Predict the next of a hundred words."""

    large: bool = False
    """Whether the model has 25 million weights, so that its memory shows."""
    weighed: bool = True
    """Whether a trial stays at its third step to be weighed."""

    def data(self) -> DatasetDict:
        """Return tokenised rows: 64 tokens each; the file ``tokenised`` of the project gets a line."""
        with (self.home / "tokenised").open("a") as file:
            file.write("tokenised\n")
        texts = Dataset.from_dict({"text": [" ".join(str((7 * n + k) % 100) for k in range(64)) for n in range(4000)]})

        def tokens(row: dict[str, str]) -> dict[str, list[int]]:
            ids = [int(word) for word in row["text"].split()]
            return {"input_ids": ids, "labels": ids}

        rows = texts.map(tokens, remove_columns="text")
        return DatasetDict({"train": rows, "validation": rows.select(range(8))})

    def model_init(self, **config: Any) -> PreTrainedModel:
        """Return a fresh GPT-2."""
        width, layers = (512, 8) if self.large else (32, 2)
        shape = {"vocab_size": 100, "n_positions": 64, "n_embd": width, "n_layer": layers, "n_head": 4}
        return GPT2LMHeadModel(GPT2Config(**{**shape, **config}))

    def trainer(self, **kwargs: Any) -> Trainer:
        """Return a Trainer that says when its third step has ended, where it is weighed then."""
        trainer = Trainer(**kwargs)
        if self.weighed:
            trainer.add_callback(ThirdStep(Path(kwargs["args"].output_dir).parent / "third-step"))
        return trainer

    def reported(self) -> frozenset[str]:
        """Return the loss."""
        return frozenset({"eval_loss"})


class ThirdStep(TrainerCallback):
    """Writes the process id, the megabytes of the weights and those that malloc keeps free, and stays to be weighed.

    In the third step the weights, their gradients and the optimizer's moments all exist; what a step computes besides is
    freed by then. Malloc keeps that for the next step, as it does in any process that trains.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Write, and wait to be ended."""
        if state.global_step == 2:
            assert all(weight.grad is not None for weight in model.parameters())
            size = sum(weight.numel() * weight.element_size() for weight in model.parameters()) / 2**20
            new = self._file.with_suffix(".new")
            new.write_text(f"{os.getpid()} {size} {_kept()}")
            new.rename(self._file)
            while True:
                signal.pause()


def _kept() -> float:
    """Return the MB that glibc's malloc holds free for what comes next; 0 with another."""

    class Counts(ctypes.Structure):
        _fields_ = [(f"field{number}", ctypes.c_size_t) for number in range(10)]

    try:
        ask = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return 0.0
    ask.restype = Counts
    return float(ask().field8) / 2**20
