"""Lays an accelerate config file beneath a study, as the settings that it comes to; what reads the study knows no such file.

How ``accelerate launch`` reads these files: ``accelerate.commands.launch``, ``accelerate.utils.launch``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sweepkit.check.merging import as_mapping, beneath, label_of
from sweepkit.check.yaml import Document, Keys, key_text, read_file
from sweepkit.study import messages
from sweepkit.study.errors import Problem, StudyFileError

_KEY = ("backend", "accelerate")
_TYPES = ("NO", "MULTI_CPU", "MULTI_GPU", "FSDP", "DEEPSPEED")
_READ = (
    *("compute_environment", "distributed_type", "num_machines", "num_processes", "parallelism_config"),
    *("mixed_precision", "fp16", "use_cpu", "fsdp_config", "deepspeed_config", "dynamo_config", "dynamo_backend"),
)
_MEETING = "the study starts the ranks of a trial"
_TPU = "trials run on GPUs or CPUs"
_NO_OPTION = "TrainingArguments have no such option"
_IDLE: Mapping[str, tuple[tuple[Any, ...], str]] = MappingProxyType(
    {
        "rdzv_backend": (("static",), _MEETING),
        "same_network": ((True, False), _MEETING),
        **dict.fromkeys(("machine_rank", "main_process_ip", "main_process_port", "mpirun_config"), ((0,), _MEETING)),
        "gpu_ids": (("all",), "CUDA_VISIBLE_DEVICES says which GPUs sweep run may use"),
        "debug": ((False,), "set ACCELERATE_DEBUG_MODE=true for sweep run"),
        "enable_cpu_affinity": ((False,), "set ACCELERATE_CPU_AFFINITY=1 for sweep run"),
        "main_training_function": (("main",), "the task says what is trained"),
        **dict.fromkeys(("downcast_bf16", "tpu_use_cluster", "tpu_use_sudo"), ((False,), _TPU)),
        **dict.fromkeys(("tpu_name", "tpu_zone", "tpu_vm", "tpu_env", "command_file", "commands"), (([""],), _TPU)),
        "fp8_config": ((), "mixed_precision is not fp8"),
        "megatron_lm_config": ((), "distributed_type is not MEGATRON_LM"),
    }
)
"""Keys without effect here → values of which not a word is said, and the reason that is given for others."""
_FSDP_1 = ("backward_prefetch", "forward_prefetch", "use_orig_params", "sync_module_states")
_FSDP = {
    **{name: name for name in ("version", "reshard_after_forward", "auto_wrap_policy", "min_num_params", *_FSDP_1)},
    **{name: name for name in ("cpu_ram_efficient_loading", "activation_checkpointing", "state_dict_type")},
    "offload_params": "cpu_offload",
    "transformer_layer_cls_to_wrap": "transformer_layer_cls_to_wrap",
    **dict.fromkeys(("activation_checkpointing_offload", "ignored_modules", "sharding_strategy"), ""),
}
"""Accelerate's options of FSDP → their names in ``fsdp_config`` of TrainingArguments; empty: there is none."""
_ZERO = {
    "zero_stage": "stage",
    "offload_optimizer_device": "offload_optimizer.device",
    "offload_optimizer_nvme_path": "offload_optimizer.nvme_path",
    "offload_param_device": "offload_param.device",
    "offload_param_nvme_path": "offload_param.nvme_path",
    "zero3_save_16bit_model": "stage3_gather_16bit_weights_on_model_save",
}
"""Accelerate's options of DeepSpeed → their names in its ``zero_optimization``."""
_TRAINING = {"gradient_accumulation_steps": "gradient_accumulation_steps", "gradient_clipping": "max_grad_norm"}
_AUTO = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
_LAUNCHER = {
    **dict.fromkeys(("deepspeed_hostfile", "deepspeed_multinode_launcher"), _MEETING),
    **dict.fromkeys(("deepspeed_exclusion_filter", "deepspeed_inclusion_filter"), _MEETING),
    "deepspeed_moe_layer_cls_names": _NO_OPTION,
}
_RIVALS = {
    "deepspeed": ("fsdp", "fsdp_config"),
    "fsdp": ("deepspeed",),
    "bf16": ("fp16",),
    "fp16": ("bf16",),
    "gpus_per_trial": ("use_cpu",),
}
"""What a study sets or searches → what it rules out of the file."""
_OFF = {
    "fsdp": ("fsdp_config",),
    "torch_compile": ("torch_compile_backend", "torch_compile_mode"),
    "use_cpu": ("gpus_per_trial",),
}
"""What a study turns off → what goes with it."""


def with_accelerate(document: Document, home: Path) -> tuple[Document, list[Problem]]:
    """Return a study's document merged over the accelerate file that it names, and what of that file has no effect."""
    name = as_mapping(as_mapping(document.data).get("backend")).get("accelerate")
    if not isinstance(name, str):
        return document, []
    file, origin = (home / Path(name).expanduser()).resolve(), document.origin(_KEY)
    own = {key: value for key, value in document.data["backend"].items() if key != "accelerate"}
    document = Document({**document.data, "backend": own}, document.origins, document.problems)
    if not file.is_file():
        message = f"there is no file {name} (looked in {home})"
        place = (origin.file, origin.line) if origin else (None, None)
        document.problems.append(Problem(key_text(_KEY), message, *place))
        return document, []
    try:
        config = _Config(read_file(file, label_of(file)), file.parent)
    except StudyFileError as error:
        document.problems.extend(error.problems)
        return document, []
    config.translate(ranks="ranks_per_trial" in own)
    for section in (config.training, config.backend):
        for key in _ruled_out(document.data) & section.keys():
            del section[key]
    return beneath(document, config.result), config.idle


def _ruled_out(study: Mapping[str, Any]) -> set[str]:
    fixed = {**as_mapping(study.get("backend")), **as_mapping(study.get("training"))}
    used = {str(name).partition(".")[0] for name in as_mapping(study.get("space"))}
    used |= {name for name, value in fixed.items() if value and value != "auto"}
    off = fixed.keys() - used
    return {name for key in used for name in _RIVALS.get(key, ())} | {name for key in off for name in _OFF.get(key, ())}


class _Config:
    """A config file of accelerate, and the settings of a study that it comes to."""

    def __init__(self, document: Document, folder: Path) -> None:
        self.document, self.folder = document, folder
        self.given = {key: _plain(value) for key, value in document.data.items() if value not in (None, {}, [])}
        self.training: dict[str, Any] = {}
        self.backend: dict[str, Any] = {}
        data = {"training": self.training, "backend": self.backend}
        self.result = Document(data, {(): document.origins[()]}, list(document.problems))
        self.idle: list[Problem] = []

    def translate(self, *, ranks: bool) -> None:
        """Fill the result; ``ranks``: the study says by itself how many ranks a trial has."""
        kind, place = self.given.get("distributed_type"), self.given.get("compute_environment", "LOCAL_MACHINE")
        kind = kind if kind is not False else "NO"
        if place != "LOCAL_MACHINE":
            self.refuse(
                ("compute_environment",), f"expected LOCAL_MACHINE, got {place}: {_TPU} of this machine or of Ray's"
            )
        elif kind not in _TYPES:
            found = "it is missing" if kind is None else f"got {kind}"
            self.refuse(("distributed_type",), f"expected {messages.either(list(_TYPES))}, {found}: {_TPU}")
        else:
            self.keys(kind)
            self.processes(kind, ranks)
            self.precision()
            self.compilation()
            if kind == "FSDP":
                self.fsdp()
            elif kind == "DEEPSPEED":
                self.deepspeed()

    def keys(self, kind: str) -> None:
        for key, value in self.given.items():
            needs = {"fsdp_config": "FSDP", "deepspeed_config": "DEEPSPEED"}.get(key, kind)
            if key in _IDLE:
                if value not in _IDLE[key][0]:
                    self.without_effect((key,), _IDLE[key][1])
            elif key not in _READ:
                self.refuse((key,), f"accelerate has no such key{messages.near(str(key), [*_READ, *_IDLE])}")
            elif needs != kind:
                self.without_effect((key,), f"distributed_type is {kind}")
        if self.given.get("num_machines", 1) != 1:
            message = "the ranks of a trial share one machine; set 1 (a trial each on several: backend.type ray)"
            self.refuse(("num_machines",), message)
        for key, value in as_mapping(self.given.get("parallelism_config")).items():
            if str(key).endswith("_size") and value != 1:
                self.refuse(("parallelism_config", key), f"expected 1, got {value}: {_NO_OPTION}")

    def processes(self, kind: str, ranks: bool) -> None:
        number = 1 if kind == "NO" else self.given.get("num_processes", -1)
        if isinstance(number, int) and number > 0:
            self.backend["ranks_per_trial"] = number
            self.came_from(("backend", "ranks_per_trial"), ("num_processes",))
        elif not ranks:
            message = f"{kind} needs a whole number above 0; set it, or backend.ranks_per_trial in the study"
            self.refuse(("num_processes",), message)
        if kind == "MULTI_CPU" or self.given.get("use_cpu"):
            at = ("use_cpu",) if self.given.get("use_cpu") else ("distributed_type",)
            self.put("use_cpu", True, at)
            self.backend["gpus_per_trial"] = 0
            self.came_from(("backend", "gpus_per_trial"), at)

    def precision(self) -> None:
        at = ("mixed_precision",) if "mixed_precision" in self.given else ("fp16",)
        value = self.given.get(at[0], False)
        value = str(at[0] if value is True else value).lower()
        if value in ("fp16", "bf16"):
            self.put(value, True, at)
        elif value != "false":
            self.refuse(at, f"expected no, fp16 or bf16, got {value}: {_NO_OPTION}")

    def compilation(self) -> None:
        at = ("dynamo_config",) if "dynamo_config" in self.given else ("dynamo_backend",)
        given = self.given.get(at[0])
        for name, (key, value) in self.options(at[0], "dynamo_").items() if isinstance(given, Mapping) else ():
            if name.startswith("use_") and value:
                self.without_effect(key, _NO_OPTION)
            elif not name.startswith("use_") and name not in ("backend", "mode"):
                self.refuse(key, "accelerate has no such option of torch.compile")
        options = self.options(at[0], "dynamo_") if isinstance(given, Mapping) else {"backend": (at, given)}
        backend = options.get("backend", (at, False))
        if backend[1]:
            self.put("torch_compile", True, at)
            self.put("torch_compile_backend", str(backend[1]).lower(), backend[0])
            if "mode" in options:
                self.put("torch_compile_mode", options["mode"][1], options["mode"][0])

    def fsdp(self) -> None:
        given = self.options("fsdp_config", "fsdp_")
        version = 2 if str(given.get("version", ((), 1))[1]) == "2" else 1
        config: dict[str, Any] = {"version": version, "auto_wrap_policy": "NO_WRAP"}
        self.put("fsdp", True, ("distributed_type",))
        self.put("fsdp_config", config, ("fsdp_config",))
        for name, (key, value) in given.items():
            to = _FSDP.get(name)
            if to is None:
                self.refuse(key, f"accelerate has no such option of FSDP{messages.near(name, _FSDP)}")
            elif name in ("sharding_strategy", "reshard_after_forward") and version == 1:
                if str(value).upper() not in ("FULL_SHARD", "1"):
                    self.refuse(key, f"expected FULL_SHARD, got {value}: TrainingArguments pass no other on to FSDP 1")
            elif not to or (name in _FSDP_1 and version == 2):
                if value:
                    self.without_effect(key, "FSDP 2 has no such option" if to else _NO_OPTION)
            elif name == "state_dict_type" and str(value).upper() != "FULL_STATE_DICT":
                self.without_effect(key, "best/ is one whole model, FULL_STATE_DICT")
            elif name != "version":
                config[to] = _fsdp_value(name, value)
                self.came_from(("training", "fsdp_config", to), key)
        if config["auto_wrap_policy"] == "SIZE_BASED_WRAP":
            config.setdefault("min_num_params", 100_000_000)

    def deepspeed(self) -> None:
        given = self.options("deepspeed_config", "")
        config: Any = {**dict.fromkeys(_AUTO, "auto"), "zero_optimization": {"stage": 2}}
        for half in ("fp16", "bf16"):
            config[half] = {"enabled": "auto"}
        if file := given.get("deepspeed_config_file"):
            config = self.deepspeed_file(*file)
        self.put("deepspeed", config, ("deepspeed_config",))
        for name, (key, value) in given.items():
            if name in _LAUNCHER and value:
                self.without_effect(key, _LAUNCHER[name])
            elif name not in (*_ZERO, *_TRAINING, *_LAUNCHER, "deepspeed_config_file", "zero3_init_flag"):
                known = (*_ZERO, *_TRAINING, *_LAUNCHER, "deepspeed_config_file")
                self.refuse(key, f"accelerate has no such option of DeepSpeed{messages.near(name, known)}")
            elif file and name in (*_ZERO, *_TRAINING):
                self.refuse(key, "belongs in the file that deepspeed_config_file names")
            elif name in _TRAINING and value != "auto":
                self.put(_TRAINING[name], value, key)
            elif name in _ZERO and value not in ("none", "None"):
                section, _, inner = _ZERO[name].rpartition(".")
                zero = config["zero_optimization"]
                (zero.setdefault(section, {}) if section else zero)[inner] = value
                self.came_from(("training", "deepspeed", "zero_optimization", *_ZERO[name].split(".")), key)

    def deepspeed_file(self, key: Keys, name: Any) -> Any:
        """Return the contents of DeepSpeed's own file, which are the study's from here on."""
        path = self.folder / Path(str(name)).expanduser()
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else f"it is not JSON: {error}"
            self.refuse(key, f"cannot read {name} (looked in {self.folder}): {reason}")
            return {}
        if not isinstance(found, dict):
            self.refuse(key, f"{name} must hold keys with values, got {messages.show(found)}")
        return found

    def options(self, section: str, prefix: str) -> dict[str, tuple[Keys, Any]]:
        """Return a section's values by their names without the prefix, each with its place."""
        given = self.given.get(section, {})
        if not isinstance(given, Mapping):
            self.refuse((section,), f"expected keys with values, got {messages.show(given)}")
        found = {str(key).removeprefix(prefix): ((section, key), value) for key, value in as_mapping(given).items()}
        return {name: each for name, each in found.items() if each[1] is not None}

    def put(self, name: str, value: Any, key: Keys) -> None:
        self.training[name] = value
        self.came_from(("training", name), key)

    def came_from(self, to: Keys, key: Keys) -> None:
        if origin := self.document.origin(key):
            self.result.origins[to] = origin

    def problem(self, key: Keys, message: str) -> Problem:
        origin = self.document.origin(key) or self.document.origins[()]
        return Problem(key_text(key), message, origin.file, origin.line)

    def refuse(self, key: Keys, message: str) -> None:
        self.result.problems.append(self.problem(key, message))

    def without_effect(self, key: Keys, reason: str) -> None:
        self.idle.append(self.problem(key, f"has no effect here: {reason}"))


def _plain(value: Any) -> Any:
    """Return a value as accelerate's reader of YAML takes it: ``no`` and ``yes`` are booleans there."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, str) and value.lower() in ("yes", "on", "true", "no", "off", "false"):
        return value.lower() in ("yes", "on", "true")
    return value


def _fsdp_value(name: str, value: Any) -> Any:
    if name == "transformer_layer_cls_to_wrap" and isinstance(value, str):
        return [each.strip() for each in value.split(",")]
    return value.upper() if name == "auto_wrap_policy" and isinstance(value, str) else value
