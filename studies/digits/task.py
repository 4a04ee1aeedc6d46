"""scikit-learn's handwritten digits and a vision transformer small enough to train from scratch on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import PrivateAttr

from sweepkit import Task

if TYPE_CHECKING:
    from datasets import DatasetDict
    from transformers import EvalPrediction, PreTrainedModel


class Digits(Task):
    """1,797 pictures of 8 × 8 pixels: 1,197 to train on, 300 to validate, 300 for a last test."""

    metrics: list[str | dict[str, dict[str, Any]]] = ["accuracy"]
    """Metrics by name, over ten classes."""
    model: dict[str, dict[str, Any]] = {
        "config": {
            "model_type": "vit",
            "image_size": 8,
            "patch_size": 2,
            "num_channels": 1,
            "hidden_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "intermediate_size": 96,
        }
    }
    """The vision transformer's configuration; ``model.*`` goes over it."""
    split_seed: int = 0
    """Seed of the split; it is not the trial's seed, so that all trials see the same pictures."""

    def data(self) -> DatasetDict:
        """Return the pictures, brightness from 0 to 1, each digit equally frequent in all three splits."""
        from datasets import Array3D, ClassLabel, Dataset, DatasetDict, Features
        from sklearn.datasets import load_digits

        pictures, labels = load_digits(return_X_y=True)
        features = Features({"pixel_values": Array3D((1, 8, 8), "float32"), "labels": ClassLabel(10)})
        columns = {"pixel_values": pictures.reshape(-1, 1, 8, 8).astype("float32") / 16, "labels": labels}
        rows = Dataset.from_dict(columns, features=features)
        rest = rows.train_test_split(test_size=300, seed=self.split_seed, stratify_by_column="labels")
        train = rest["train"].train_test_split(test_size=300, seed=self.split_seed, stratify_by_column="labels")
        return DatasetDict(train=train["train"], validation=train["test"], test=rest["test"])

    def model_init(self, **config: Any) -> PreTrainedModel:
        """Return a vision transformer with random weights."""
        from transformers import ViTConfig, ViTForImageClassification

        return ViTForImageClassification(ViTConfig(**{**self.model["config"], "num_labels": 10, **config}))


class SizedDigits(Digits):
    """The digits, and how many weights it took: for studies that want few."""

    metrics: list[str | dict[str, dict[str, Any]]] = ["accuracy", "parameters"]
    """What :meth:`compute_metrics` returns."""

    _parameters: int = PrivateAttr(default=0)

    def model_init(self, **config: Any) -> PreTrainedModel:
        """Return a vision transformer with random weights, counted."""
        model = super().model_init(**config)
        self._parameters = model.num_parameters()
        return model

    def compute_metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        """Return the accuracy, and the number of weights of the model that reached it."""
        return {**self._score(["accuracy"], prediction), "parameters": float(self._parameters)}
