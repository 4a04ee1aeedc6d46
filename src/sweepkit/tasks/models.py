"""Loads models, tokenizers and image processors from the hub, a local folder, a pip package or a configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, field_validator

from sweepkit.study.errors import InputError, nearest
from sweepkit.study.files import first_line
from sweepkit.study.names import nest
from sweepkit.tasks.references import find_model

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


class FromConfig(BaseModel):
    """A model with random weights, made from its configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, strict=True)

    config: dict[str, Any]
    """``model_type`` (bert, gpt2, vit, …) and any fields of its configuration."""
    tokenizer: str | None = None
    """Hub id, local folder or ``package:NAME/sub/folder`` of the tokenizer (or image processor)."""

    @field_validator("config")
    @classmethod
    def _typed(cls, config: dict[str, Any]) -> dict[str, Any]:
        if "model_type" not in config:
            raise ValueError("model_type is missing, for example bert, gpt2 or vit")
        return config


ModelRef = str | FromConfig
"""A hub id, a local folder, ``package:NAME/sub/folder``, or a configuration."""


def locate(ref: str, home: Path) -> str:
    """Return the argument of ``from_pretrained``: a local folder, else the hub id. Raises InputError."""
    try:
        folder = find_model(ref, home)
    except InputError as error:
        raise InputError(f"task.model: {error}") from error
    return str(folder or ref)


def local_files(ref: ModelRef, home: Path) -> list[Path]:
    """Return the files of a local model that its tokenizer depends on."""
    text = ref if isinstance(ref, str) else ref.tokenizer
    folder = Path(locate(text, home)) if text is not None else None
    if folder is None or not folder.is_absolute():
        return []
    return sorted(file for file in folder.iterdir() if file.suffix in (".json", ".txt", ".model", ".py", ".jinja"))


def configuration(ref: ModelRef, home: Path, *, trust_remote_code: bool = False, **overrides: Any) -> PreTrainedConfig:
    """Return the model's configuration with ``overrides``. Raises InputError for unknown fields.

    A dotted name overrides one key in a mapping of the configuration.
    """
    from transformers import CONFIG_MAPPING, AutoConfig

    if isinstance(ref, FromConfig):
        values = dict(ref.config)
        kind = values.pop("model_type")
        if kind not in CONFIG_MAPPING:
            raise InputError(f"task.model.config: unknown model_type {kind}{nearest(kind, CONFIG_MAPPING)}")
        plain: PreTrainedConfig = CONFIG_MAPPING[kind]()
        _known(plain, values, "task.model.config")
        overrides = nest(overrides, lambda name: values.get(name, getattr(plain, name, None)))
        _known(plain, overrides, "model")
        return plain.__class__(**{**values, **overrides})
    config = _pretrained(AutoConfig, ref, home, trust_remote_code=trust_remote_code)
    overrides = nest(overrides, lambda name: getattr(config, name, None))
    _known(config, overrides, "model")
    changed: PreTrainedConfig = _pretrained(AutoConfig, ref, home, trust_remote_code=trust_remote_code, **overrides)
    return changed


def model(auto: Any, ref: ModelRef, home: Path, overrides: Mapping[str, Any], **loading: Any) -> PreTrainedModel:
    """Return a fresh model of an ``AutoModelFor…`` class, with random weights where ``ref`` is a configuration.

    ``overrides`` are fields of the configuration, ``loading`` the arguments of ``from_pretrained``. Weights are float32
    unless ``dtype`` is among the overrides, because half precision does not train well without a float32 copy. A head for
    another number of classes is replaced by a new one. Raises InputError.
    """
    import torch

    trusted = {"trust_remote_code": loading.get("trust_remote_code", False)}
    config = configuration(ref, home, **trusted, **overrides)
    dtype = config.dtype if "dtype" in overrides else torch.float32
    if isinstance(ref, FromConfig):
        if "quantization_config" in loading:
            raise InputError("task.quantization: a model from a configuration has no weights that could be quantized")
        fresh: PreTrainedModel = auto.from_config(config, dtype=dtype, **trusted)
        return fresh
    loading |= {"config": config, "dtype": dtype, "ignore_mismatched_sizes": True, "output_loading_info": True}
    loaded: PreTrainedModel
    loaded, found = _pretrained(auto, ref, home, **loading)
    for name, saved, wanted in sorted(found["mismatched_keys"]):
        if "num_labels" not in overrides or wanted[:1] != (config.num_labels,) or saved[1:] != wanted[1:]:
            shapes = f"{tuple(saved)} in the checkpoint, {tuple(wanted)} by the configuration"
            raise InputError(f"task.model: {ref} cannot be loaded: {name} is {shapes}")
    return loaded


def classes(names: Sequence[str], problem: str | None = "single_label_classification") -> dict[str, Any]:
    """Return the fields of a configuration that describe a classification head."""
    return {
        "num_labels": len(names),
        "id2label": dict(enumerate(names)),
        "label2id": {name: number for number, name in enumerate(names)},
        **({} if problem is None else {"problem_type": problem}),
    }


def tokenizer(ref: ModelRef, home: Path, *, trust_remote_code: bool = False, **options: Any) -> PreTrainedTokenizerBase:
    """Return the model's tokenizer, which pads with the end-of-text token where it has no padding token."""
    from transformers import AutoTokenizer

    text = ref if isinstance(ref, str) else ref.tokenizer
    if text is None:
        raise InputError("task.model: a model from a configuration needs tokenizer: (hub id, folder or package:NAME/…)")
    loaded: PreTrainedTokenizerBase = _pretrained(
        AutoTokenizer, text, home, trust_remote_code=trust_remote_code, **options
    )
    if loaded.pad_token is None:
        loaded.pad_token = loaded.eos_token
    return loaded


def image_processor(ref: ModelRef, home: Path, *, trust_remote_code: bool = False) -> BaseImageProcessor:
    """Return the model's image processor; for a configuration without one, ViT's at its ``image_size``."""
    from transformers import AutoImageProcessor
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    text = ref if isinstance(ref, str) else ref.tokenizer
    if text is None:
        size = getattr(configuration(ref, home), "image_size", None)
        if not isinstance(size, int):
            raise InputError("task.model: this configuration has no image_size; name an image processor as tokenizer:")
        return ViTImageProcessorPil(size={"height": size, "width": size})
    loaded: BaseImageProcessor = _pretrained(AutoImageProcessor, text, home, trust_remote_code=trust_remote_code)
    return loaded


def longest(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the longest input in tokens that tokenizer and positions allow; None where nothing limits it."""
    limits = [tokenizer.model_max_length]
    positions = getattr(config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        # RoBERTa's family counts positions from padding_idx + 1.
        offset = (config.pad_token_id or 0) + 1 if config.model_type in ("roberta", "xlm-roberta", "camembert") else 0
        limits.append(positions - offset)
    shortest = min(limits)
    return shortest if shortest < 1_000_000 else None  # transformers writes 1e30 where a tokenizer has no limit


def _known(config: PreTrainedConfig, values: Mapping[str, Any], prefix: str) -> None:
    known = {*config.to_dict(), *config.attribute_map, "num_labels"}
    for name in values:
        if name not in known and not hasattr(config, name):
            raise InputError(f"{prefix}.{name}: {type(config).__name__} has no field {name}{nearest(name, known)}")


def _pretrained(auto: Any, ref: str, home: Path, **options: Any) -> Any:
    """Return ``auto.from_pretrained`` of a reference. Raises InputError."""
    source = locate(ref, home)
    try:
        return auto.from_pretrained(source, **options)
    except (OSError, ValueError) as error:
        missing = "" if Path(source).is_dir() else " is not a folder here and"
        cause = first_line(error) or type(error).__name__
        raise InputError(f"task.model: {source}{missing} cannot be loaded: {cause}") from error
