"""Spoken vowels as time series, and PatchTST from scratch to tell the speakers apart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweepkit import Task
from sweepkit.tasks.references import package_path

if TYPE_CHECKING:
    from datasets import DatasetDict
    from transformers import PreTrainedModel

FILES = "package:aeon/datasets/data/JapaneseVowels/JapaneseVowels_eq_{part}.ts"


class Vowels(Task):
    """Two vowels spoken by nine men: twelve coefficients over 25 moments; who speaks?"""

    metrics: list[str | dict[str, dict[str, Any]]] = ["accuracy"]
    """Metrics by name, over nine classes."""
    model: dict[str, dict[str, Any]] = {
        "config": {
            "model_type": "patchtst",
            "context_length": 25,
            "patch_length": 5,
            "patch_stride": 4,
            "num_input_channels": 12,
            "d_model": 32,
            "ffn_dim": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
        }
    }
    """PatchTST's configuration; ``model.*`` goes over it."""
    split_seed: int = 0
    """Seed that sets 70 of the 270 training series aside for validation."""

    def data(self) -> DatasetDict:
        """Return 200 series to train on, 70 to validate, and the data set's own 370 for a last test."""
        from datasets import Array2D, ClassLabel, Dataset, DatasetDict, Features

        features = Features({"past_values": Array2D((25, 12), "float32"), "target_values": ClassLabel(9)})
        parts = {part: Dataset.from_dict(series(file), features=features) for part, file in self.files().items()}
        split = parts["TRAIN"].train_test_split(70, seed=self.split_seed, stratify_by_column="target_values")
        return DatasetDict(train=split["train"], validation=split["test"], test=parts["TEST"])

    def files(self) -> dict[str, Path]:
        """Return the data set's two files, which came with aeon."""
        return {part: package_path(FILES.format(part=part)) for part in ("TRAIN", "TEST")}

    def inputs(self) -> list[Path]:
        """Return the files that the prepared data depends on."""
        return list(self.files().values())

    def model_init(self, **config: Any) -> PreTrainedModel:
        """Return PatchTST with random weights and a head for nine speakers."""
        from transformers import PatchTSTConfig, PatchTSTForClassification

        return PatchTSTForClassification(PatchTSTConfig(**{**self.model["config"], "num_targets": 9, **config}))


def series(file: Path) -> dict[str, list[Any]]:
    """Return a ``.ts`` file's series (moments × coefficients) and speakers (from 0).

    A line is a series: its channels divided by colons, numbers by commas, the class at the end.
    """
    import numpy as np

    lines = [line for line in file.read_text().split("@data")[1].splitlines() if line.strip()]
    channels = [line.split(":") for line in lines]
    values = [np.array([part.split(",") for part in each[:-1]], dtype="float32").T for each in channels]
    return {"past_values": values, "target_values": [int(each[-1]) - 1 for each in channels]}
