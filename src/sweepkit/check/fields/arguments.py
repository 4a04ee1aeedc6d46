"""Fields of TrainingArguments and LoraConfig, and today's names of those that older versions had."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType

from sweepkit.check.fields.classes import Field, read_class
from sweepkit.check.fields.modules import kept
from sweepkit.tasks.arguments import HUB
from sweepkit.tasks.references import package_folder

RENAMED: Mapping[str, str] = MappingProxyType(
    {
        "evaluation_strategy": "eval_strategy",
        "evaluate_during_training": "eval_strategy",
        "warmup_ratio": "warmup_steps (a value below 1 is a ratio of all steps)",
        "no_cuda": "use_cpu",
        "per_gpu_train_batch_size": "per_device_train_batch_size",
        "per_gpu_eval_batch_size": "per_device_eval_batch_size",
        "adafactor": "optim (adafactor)",
        "fp16_backend": "fp16 or bf16 (there is one backend left)",
        "half_precision_backend": "fp16 or bf16 (there is one backend left)",
        "fp16_opt_level": "fp16 or bf16 (apex is gone)",
        "group_by_length": "train_sampling_strategy (group_by_length)",
        "include_inputs_for_metrics": "include_for_metrics ([inputs])",
        "torchdynamo": "torch_compile_backend",
        "use_mps_device": "use_cpu (a GPU is used wherever there is one)",
        "fsdp_transformer_layer_cls_to_wrap": "fsdp_config (transformer_layer_cls_to_wrap)",
        "fsdp_min_num_params": "fsdp_config (min_num_params)",
        "dispatch_batches": "accelerator_config (dispatch_batches)",
        "split_batches": "accelerator_config (split_batches)",
        "include_tokens_per_second": "include_num_input_tokens_seen",
        "lr": "learning_rate",
        "batch_size": "per_device_train_batch_size",
        "train_batch_size": "per_device_train_batch_size",
        "eval_batch_size": "per_device_eval_batch_size",
        "epochs": "num_train_epochs",
        "dropout": "a model.* name, for example model.hidden_dropout_prob",
    }
)
"""Names in older transformers, and common shorthands → today's names."""

REMOVED: Mapping[str, str] = MappingProxyType(
    {
        "logging_dir": "a trial's directory holds its logs (TensorBoard's folder: TENSORBOARD_LOGGING_DIR)",
        "save_safetensors": "checkpoints are always safetensors",
        "overwrite_output_dir": "each trial has its own directory under runs/",
        "tokenizer": "the task hands it over: see processing_class of Task",
        "use_legacy_prediction_loop": "there is one evaluation loop left",
        "past_index": "no model uses it any more",
        "jit_mode_eval": "use torch_compile",
        "use_ipex": "torch has what it brought",
        "mp_parameters": "SageMaker's model parallelism is gone",
        "ray_scope": "trials are the study's: see its backend section",
        "tpu_num_cores": "the launcher decides it",
        "tpu_metrics_debug": "use debug",
        "push_to_hub_model_id": HUB,
        "push_to_hub_organization": HUB,
        "push_to_hub_token": HUB,
    }
)
"""Names in older transformers without a successor → why none is needed."""

RATIOS = frozenset({"warmup_steps", "eval_steps", "logging_steps", "save_steps"})
"""Float fields that mean a ratio of all steps below 1, and a number of steps from 1 on."""


TRAINING_ARGUMENTS = "transformers.training_args:TrainingArguments"
"""The plain Trainer's arguments, as ``module:Class``."""


@kept
def training_fields(arguments_type: str = TRAINING_ARGUMENTS) -> Mapping[str, Field]:
    """Return every field of a Trainer's arguments; none where ``module:Class`` cannot be found."""
    module, _, name = arguments_type.partition(":")
    package, *parts = module.split(".")
    folder = package_folder(package)
    found = read_class(folder.joinpath(*parts).with_suffix(".py"), name) if folder else None
    fields = dict(found.fields) if found else {}
    if "optim" in fields and fields["optim"].default == "adamw_torch" and _torch() >= (2, 8):
        # transformers: TrainingArguments.default_optim is the fused AdamW from torch 2.8 on
        fields["optim"] = replace(fields["optim"], default="adamw_torch_fused")
    return MappingProxyType(fields)


def _torch() -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in version("torch").split("+")[0].split(".")[:2])
    except (PackageNotFoundError, ValueError):
        return (0,)


LORA_OWNED = frozenset({"peft_type", "peft_version", "base_model_name_or_path", "inference_mode", "auto_mapping"})
"""LoraConfig fields that follow from the study and are not hyperparameters."""


@kept
def lora_fields() -> Mapping[str, Field] | None:
    """Return every LoraConfig field of the installed peft, None where peft is not installed."""
    folder = package_folder("peft")
    found = read_class(folder / "tuners" / "lora" / "config.py", "LoraConfig") if folder else None
    if found is None:
        return None
    return MappingProxyType({name: field for name, field in found.fields.items() if name not in LORA_OWNED})
