"""Image classification: one label per image, or per array of numbers that is read as one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field, PrivateAttr

from sweepkit.study.errors import InputError
from sweepkit.tasks import labels, models
from sweepkit.tasks.data import DataSpec, choose, complete, limit, read, with_validation
from sweepkit.tasks.models import FromConfig, ModelRef
from sweepkit.tasks.task import Task, Template

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from numpy.typing import NDArray
    from transformers import BaseImageProcessor, PreTrainedModel


class ImageClassification(Task):
    """One label per image; images stay compressed on disk and go through the model's image processor batch by batch."""

    template: ClassVar[Template | None] = Template(
        metric="accuracy", data="a folder with one folder of images per class"
    )
    pipeline_tag: ClassVar[str | None] = "image-classification"

    metrics: list[str | dict[str, dict[str, Any]]] = ["accuracy"]
    """Metrics by name; f1, precision and recall are binary for two classes (of the second one), else macro."""
    model: ModelRef
    """Hub id, folder, ``package:NAME/sub/folder``, or ``{config: {model_type: vit, …}}`` for random weights."""
    source: DataSpec = Field(alias="data")
    """Where the rows come from: the hub, a folder with a folder of images per class, or files with images or arrays."""
    image: str = "image"
    """Column with images, or with arrays: height × width, channels × height × width, or a square's pixels in a row."""
    label: str = "label"
    """Column with the class; words or numbers, their names go into the model."""
    scale: float = Field(default=1.0, gt=0)
    """Arrays only: the numbers are divided by this (255 for bytes, 16 for scikit-learn's digits)."""
    train_samples: int | None = Field(default=None, ge=1)
    """At most this many training rows, drawn with ``split_seed``."""
    eval_samples: int | None = Field(default=None, ge=1)
    """At most this many validation rows (and test rows), drawn with ``split_seed``."""
    validation: float = Field(default=0.2, gt=0, lt=1)
    """Fraction of the training rows set aside where the data has no validation split; the same rows in every trial."""
    split_seed: int = 0
    """Seed of that split and of the limits; it is not the trial's seed, so that all trials see the same rows."""

    _processor: BaseImageProcessor | None = PrivateAttr(default=None)

    def data(self) -> DatasetDict:
        """Return splits with ``pixel_values`` (images as they are, arrays as numbers) and ``labels`` (a ClassLabel)."""
        used = {"pixel_values": self.image, "labels": self.label}
        rows = choose(read(self.source, self.home, used.values()), used)
        rows = complete(rows, label="labels")
        rows, _ = labels.encode_labels(rows)
        rows = with_validation(rows, self.validation, self.split_seed, stratify="labels")
        limits = {"train": self.train_samples, "validation": self.eval_samples, "test": self.eval_samples}
        rows = limit(rows, limits, self.split_seed)
        if _holds_images(rows["train"]):
            return rows
        return rows.map(
            lambda batch: {"pixel_values": [_picture(value) / self.scale for value in batch["pixel_values"]]},
            batched=True,
        )

    def data_notes(self) -> list[str]:
        """Return what is unusual about the classes of the splits."""
        return labels.notes(self.splits)

    def model_init(self, **config: Any) -> PreTrainedModel:
        """Return the model with a fresh head for the data's classes."""
        from transformers import AutoModelForImageClassification

        head = models.classes(self.splits["train"].features["labels"].names)
        return models.model(
            AutoModelForImageClassification,
            self.model,
            self.home,
            {**head, **config},
            trust_remote_code=self.trust_remote_code,
        )

    def processing_class(self) -> BaseImageProcessor | None:
        """Return the model's image processor; a model from a configuration gets ViT's. None for arrays."""
        if not _holds_images(self.splits["train"]):
            return None
        if self._processor is None:
            self._processor = models.image_processor(self.model, self.home, trust_remote_code=self.trust_remote_code)
        return self._processor

    def data_collator(self) -> Any:
        """Return what turns the images of a batch into one tensor; None for arrays, which are just stacked."""
        processor = self.processing_class()
        return None if processor is None else Pictures(processor)

    def inputs(self) -> list[Path]:
        """Return the data files."""
        folder = self.model.tokenizer if isinstance(self.model, FromConfig) else self.model
        if folder is not None:
            models.locate(folder, self.home)
        return self.source.local_files(self.home)


class Pictures:
    """Makes a batch of PIL images through an image processor."""

    def __init__(self, processor: BaseImageProcessor) -> None:
        self.processor = processor

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return ``pixel_values`` and ``labels`` of the rows."""
        import torch

        pictures = [row["pixel_values"].convert("RGB") for row in rows]
        batch = dict(self.processor(pictures, return_tensors="pt"))
        return {**batch, "labels": torch.tensor([row["labels"] for row in rows])}


def _holds_images(rows: Dataset) -> bool:
    from datasets import Image

    return isinstance(rows.features["pixel_values"], Image)


def _picture(value: Any) -> NDArray[np.float32]:
    """Channels × height × width from an array of two or three axes, or from the pixels of a square picture in a row."""
    try:
        array = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"task.image: neither an image nor an array of numbers: {str(value)[:60]}") from error
    if array.ndim == 1:
        side = math.isqrt(array.size)
        if side * side != array.size:
            raise InputError(f"task.image: {array.size} numbers in a row are no square picture")
        array = array.reshape(side, side)
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3:
        raise InputError(f"task.image: an array of shape {array.shape} is no picture")
    return array
