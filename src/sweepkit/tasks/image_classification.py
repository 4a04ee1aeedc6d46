"""Image classification: one label per image, or per array of numbers read as an image."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, PrivateAttr

from sweepkit.study.errors import InputError
from sweepkit.tasks import labels, models
from sweepkit.tasks.built_in import BuiltInTask
from sweepkit.tasks.data import Column, DataSpec, read
from sweepkit.tasks.models import FromConfig, ModelRef
from sweepkit.tasks.rows import choose, complete
from sweepkit.tasks.shapes import CLASS, Role
from sweepkit.tasks.splitting import with_validation
from sweepkit.tasks.task import Template

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from numpy.typing import NDArray
    from transformers import BaseImageProcessor, PreTrainedModel


class ImageClassification(BuiltInTask):
    """One label per image; images stay compressed on disk, and the model's image processor reads them batch by batch."""

    template: ClassVar[Template | None] = Template(
        metric="accuracy",
        data="a folder with one folder of images per class, or columns image and label",
        model="google/vit-base-patch16-224-in21k",
        shapes=({"image": Role(("image", "img picture photo pixels"), "image", by_value=True), "label": CLASS},),
    )
    pipeline_tag: ClassVar[str | None] = "image-classification"

    metrics: list[str | dict[str, dict[str, Any]]] = ["accuracy"]
    """Metrics by name; f1, precision and recall are binary (of the second class) for two classes, else macro."""
    model: ModelRef
    """Hub id, folder, ``package:NAME/sub/folder``, or ``{config: {model_type: vit, …}}`` for random weights."""
    source: DataSpec = Field(alias="data")
    """Where the rows come from: the hub, a folder with a folder of images per class, or files with images or arrays."""
    image: Annotated[str, Column()] = "image"
    """Column with images, or with arrays: height × width, channels × height × width, or a square's pixels in a row."""
    label: Annotated[str, Column(label=True)] = "label"
    """Column with the class, words or numbers, which become the model's class names."""
    scale: float = Field(default=1.0, gt=0)
    """Divisor of the numbers in arrays: 255 for bytes, 16 for scikit-learn's digits."""
    _processor: BaseImageProcessor | None = PrivateAttr(default=None)

    def data(self) -> DatasetDict:
        """Return splits with ``pixel_values`` (images as they are, arrays as numbers) and ``labels`` (a ClassLabel)."""
        used = {"pixel_values": self.image, "labels": self.label}
        rows = choose(read(self.source, self.home, used.values()), used)
        rows = complete(rows, label="labels")
        rows, _ = labels.encode_labels(rows)
        rows = with_validation(rows, self.validation, self.split_seed, stratify="labels")
        rows = self._limited(rows)
        if _holds_images(rows["train"]):
            return rows
        return rows.map(
            lambda batch: {"pixel_values": [_channels(value) / self.scale for value in batch["pixel_values"]]},
            batched=True,
        )

    def data_notes(self) -> list[str]:
        """Return what is unusual about the classes of the splits."""
        return labels.notes(self.splits)

    def model_init(self, **config: Any) -> PreTrainedModel:
        """Return the model with a head for the data's classes: the checkpoint's own where it has as many, else a new one."""
        from transformers import AutoModelForImageClassification

        head = models.classes(self.splits["train"].features["labels"].names)
        return self._model(AutoModelForImageClassification, {**head, **config})

    def processing_class(self) -> BaseImageProcessor | None:
        """Return the model's image processor, ViT's for a model from a configuration; None for arrays."""
        if not _holds_images(self.splits["train"]):
            return None
        if self._processor is None:
            self._processor = models.image_processor(self.model, self.home, trust_remote_code=self.trust_remote_code)
        return self._processor

    def data_collator(self) -> Any:
        """Return a collator that processes the images of a batch; None for arrays, which are stacked."""
        processor = self.processing_class()
        return None if processor is None else ImageCollator(processor)

    def inputs(self) -> list[Path]:
        """Return the data files."""
        folder = self.model.tokenizer if isinstance(self.model, FromConfig) else self.model
        if folder is not None:
            models.locate(folder, self.home)
        return self.source.local_files(self.home)


class ImageCollator:
    """Turns rows with PIL images into a batch with an image processor."""

    def __init__(self, processor: BaseImageProcessor) -> None:
        self.processor = processor

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Return ``pixel_values`` and ``labels`` of the rows."""
        import torch

        images = [row["pixel_values"].convert("RGB") for row in rows]
        batch = dict(self.processor(images, return_tensors="pt"))
        return {**batch, "labels": torch.tensor([row["labels"] for row in rows])}


def _holds_images(rows: Dataset) -> bool:
    from datasets import Image

    return isinstance(rows.features["pixel_values"], Image)


def _channels(value: Any) -> NDArray[np.float32]:
    """Return channels × height × width from an array of two or three axes, or from the flat pixels of a square image."""
    try:
        array = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"task.image: expected an image or an array of numbers, got {str(value)[:60]}") from error
    if array.ndim == 1:
        side = math.isqrt(array.size)
        if side * side != array.size:
            raise InputError(f"task.image: {array.size} numbers in a row are not a square image")
        array = array.reshape(side, side)
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3:
        raise InputError(f"task.image: an array of shape {array.shape} is not an image")
    return array
