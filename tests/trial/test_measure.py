"""The rows of a measured trial: its first batches are like those of the whole trial."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments

from sweepkit.trial.measure import _Course

STEPS = 6


class Ids(torch.nn.Module):
    """A model of one weight that takes tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return nothing of interest."""
        return self.weight * input_ids.sum()


def padded(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Return the batch, as wide as its longest row."""
    rows = [torch.tensor(feature["input_ids"]) for feature in features]
    return {"input_ids": torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)}


def trainer(folder: Path, strategy: str) -> Trainer:
    """Return a Trainer of 640 rows, most of them short and a few of them long; 40 steps an epoch."""
    dice = random.Random(0)
    rows = Dataset.from_dict({"input_ids": [[1] * (3 + int(dice.expovariate(1 / 12))) for _ in range(640)]})
    arguments = TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        report_to="none",
        per_device_train_batch_size=16,
        per_device_eval_batch_size=16,
        train_sampling_strategy=strategy,
        dataloader_pin_memory=False,
    )
    return Trainer(model=Ids(), args=arguments, train_dataset=rows, eval_dataset=rows, data_collator=padded)


def width(batches: Any) -> float:
    """Return how many tokens a batch has on average, padding included."""
    return fmean(batch["input_ids"].numel() for batch in batches)


@pytest.mark.parametrize("strategy", ["random", "group_by_length"])
def test_measured_batches_are_as_wide_as_those_of_the_whole_trial(tmp_path: Path, strategy: str) -> None:
    whole = width(trainer(tmp_path, strategy).get_train_dataloader())
    measured = []
    for seed in range(6):
        one = trainer(tmp_path, strategy)
        _Course(worst=False, adaptive=False, seed=seed).attach(one)
        measured.append(width(islice(one.get_train_dataloader(), STEPS)))
    assert fmean(measured) == pytest.approx(whole, rel=0.15)


def test_a_measured_evaluations_batches_are_as_wide_as_those_of_the_whole(tmp_path: Path) -> None:
    whole = width(trainer(tmp_path, "group_by_length").get_eval_dataloader())
    measured = trainer(tmp_path, "group_by_length")
    _Course(worst=False, adaptive=False).attach(measured)
    assert len(measured.eval_dataset) == 16 * 16
    assert width(measured.get_eval_dataloader()) == pytest.approx(whole, rel=0.15)


def test_memory_is_measured_on_the_longest_rows(tmp_path: Path) -> None:
    one = trainer(tmp_path, "random")
    longest = sorted(map(len, one.train_dataset["input_ids"]), reverse=True)
    _Course(worst=True, adaptive=False).attach(one)
    assert [batch["input_ids"].shape[1] for batch in islice(one.get_train_dataloader(), 2)] == [longest[0], longest[16]]
    assert [batch["input_ids"].shape[1] for batch in one.get_eval_dataloader()] == [longest[0], longest[16]]
