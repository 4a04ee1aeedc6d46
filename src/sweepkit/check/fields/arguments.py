"""Today's names of the training arguments that older versions of transformers had."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sweepkit.tasks.arguments import HUB

_USUAL = {
    "lr": "learning_rate",
    "batch_size": "per_device_train_batch_size",
    "train_batch_size": "per_device_train_batch_size",
    "eval_batch_size": "per_device_eval_batch_size",
    "epochs": "num_train_epochs",
}
SHORTHANDS: Mapping[str, str] = MappingProxyType(
    {
        **_USUAL,
        "per_gpu_train_batch_size": "per_device_train_batch_size",
        "per_gpu_eval_batch_size": "per_device_eval_batch_size",
        "num_epochs": "num_train_epochs",
        "n_epochs": "num_train_epochs",
        "wd": "weight_decay",
        "warmup_ratio": "warmup_steps",
        "warmup": "warmup_steps",
        "beta1": "adam_beta1",
        "beta2": "adam_beta2",
        "eps": "adam_epsilon",
        "epsilon": "adam_epsilon",
        "grad_clip": "max_grad_norm",
        "clip_grad_norm": "max_grad_norm",
        "accumulation_steps": "gradient_accumulation_steps",
        "grad_accumulation_steps": "gradient_accumulation_steps",
        "lr_scheduler": "lr_scheduler_type",
        "scheduler": "lr_scheduler_type",
        "optimizer": "optim",
        "evaluation_strategy": "eval_strategy",
        "label_smoothing": "label_smoothing_factor",
        "lora_r": "peft.r",
        "lora_rank": "peft.r",
        "rank": "peft.r",
        "max_seq_length": "task.max_length",
        "max_seq_len": "task.max_length",
        "model_name": "task.model",
        "model_name_or_path": "task.model",
        "pretrained_model_name_or_path": "task.model",
    }
)
"""Common names in training scripts → names in a study."""

RENAMED: Mapping[str, str] = MappingProxyType(
    {
        "evaluation_strategy": "eval_strategy",
        "evaluate_during_training": "eval_strategy",
        "warmup_ratio": "warmup_steps (a value below 1 is a ratio of all steps)",
        "no_cuda": "use_cpu",
        "per_gpu_train_batch_size": "per_device_train_batch_size",
        "per_gpu_eval_batch_size": "per_device_eval_batch_size",
        "adafactor": "optim (adafactor)",
        "fp16_backend": "fp16 or bf16 (there is only one backend)",
        "half_precision_backend": "fp16 or bf16 (there is only one backend)",
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
        **_USUAL,
        "dropout": "a model.* name, for example model.hidden_dropout_prob",
    }
)
"""Names in older transformers, and the commonest shorthands → today's names."""

REMOVED: Mapping[str, str] = MappingProxyType(
    {
        "logging_dir": "a trial's directory holds its logs (TensorBoard's folder: TENSORBOARD_LOGGING_DIR)",
        "save_safetensors": "checkpoints are always safetensors",
        "overwrite_output_dir": "each trial has its own directory under runs/",
        "tokenizer": "the task provides it: see processing_class of Task",
        "use_legacy_prediction_loop": "there is only one evaluation loop",
        "past_index": "no model uses it",
        "jit_mode_eval": "use torch_compile",
        "use_ipex": "torch includes it",
        "mp_parameters": "SageMaker's model parallelism is gone",
        "ray_scope": "trials are the study's: see its backend section",
        "tpu_num_cores": "the launcher sets it",
        "tpu_metrics_debug": "use debug",
        "push_to_hub_model_id": HUB,
        "push_to_hub_organization": HUB,
        "push_to_hub_token": HUB,
    }
)
"""Names in older transformers without a successor → why none is needed."""

UNTYPED = {"fsdp": frozenset({"bool"})}
"""TrainingArguments field → kinds of values that it takes although its annotation does not say so."""

RATIOS = frozenset({"warmup_steps", "eval_steps", "logging_steps", "save_steps"})
"""Float fields that mean a ratio of all steps below 1, and a number of steps from 1 on."""

PEFT_OWNED = frozenset({"peft_type", "peft_version", "base_model_name_or_path", "inference_mode", "auto_mapping"})
"""Fields of PEFT's configurations that follow from the study and are not hyperparameters."""


def what_became_of(name: str) -> str:
    """Return what became of an argument of older transformers, or of a common shorthand; empty where it is neither."""
    if name in RENAMED:
        return f"transformers calls it {RENAMED[name]}"
    return f"transformers no longer has this argument; {REMOVED[name]}" if name in REMOVED else ""
