"""Models sharded over the ranks of a trial: what accelerate and DeepSpeed can do here, and what ``best/`` needs of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sweepkit.study.errors import Problem
from sweepkit.study.gpus import gpus_here
from sweepkit.study.parameters import Choice
from sweepkit.study.space import visit
from sweepkit.study.study import StudyData
from sweepkit.tasks.arguments import SHARDS

_VERSION = "fsdp_config.version"
_STAGE = "deepspeed.zero_optimization.stage"
_GATHERED = "deepspeed.zero_optimization.stage3_gather_16bit_weights_on_model_save"


def check_sharding(study: StudyData) -> Iterator[Problem]:
    """Yield what is wrong with ``fsdp`` and ``deepspeed``, where the study sets or searches them."""
    paths = _sharding(study)
    for path in paths:
        if study.backend.ranks_per_trial == 1:
            yield Problem(path, "spreads a model over the ranks of a trial; set backend.ranks_per_trial")
        elif path.endswith("deepspeed") and not find_spec("deepspeed"):
            yield Problem(path, "DeepSpeed is not installed: pip install deepspeed")
    if not paths or study.backend.ranks_per_trial == 1:
        return
    if study.training.get("use_cpu") or study.backend.gpus_per_trial == 0:
        yield from _on_cpu(study)
    for path, value in _values(study, "fsdp_config.state_dict_type"):
        if str(value).upper() != "FULL_STATE_DICT":
            yield Problem(path, f"best/ is one whole model, which needs state_dict_type FULL_STATE_DICT, got {value}")
    if 1 in (version for _, version in _values(study, _VERSION)):
        for path, value in _values(study, "fsdp_config.reshard_after_forward"):
            if str(value).upper() not in ("FULL_SHARD", "1"):
                yield Problem(
                    path, f"FSDP 1 always gets FULL_SHARD from accelerate, expected that, got {value}; or use version 2"
                )
    gathered = [value for _, value in _values(study, _GATHERED)]
    for path, stage in _values(study, _STAGE):
        if stage == 3 and not (gathered and all(gathered)):
            key = _GATHERED.rpartition(".")[2]
            yield Problem(path, f"best/ is one whole model, for which ZeRO-3 needs zero_optimization.{key}: true")


def find_unsharded(study: StudyData) -> Iterator[Problem]:
    """Yield what would need GPUs, on a machine without any: warnings, for the study may run on another one."""
    if _sharding(study) and not gpus_here():
        for problem in _on_cpu(study):
            yield Problem(problem.path, f"{problem.message}; this machine has none, its trials fail here")


def _on_cpu(study: StudyData) -> Iterator[Problem]:
    for path, version in _values(study, _VERSION):
        if version == 1:
            yield Problem(path, "FSDP 1 shards on GPUs alone; without them, use version 2")
    for path, stage in _values(study, _STAGE):
        if stage == 3:
            yield Problem(path, "ZeRO-3 shards on GPUs alone; without them, use stage 1 or 2, or fsdp")


def _sharding(study: StudyData) -> list[str]:
    """Return the paths of ``fsdp`` and ``deepspeed`` where the study sets or searches them."""
    fixed = {name for name, value in study.training.items() if name in SHARDS and value}
    searched = {each.name.partition(".")[0]: each.path for each in visit(study.space)}
    return [f"training.{name}" for name in sorted(fixed)] + [
        searched[name] for name in SHARDS if name in searched.keys() - fixed
    ]


def _values(study: StudyData, name: str) -> Iterator[tuple[str, Any]]:
    """Yield path and value of a key inside ``fsdp_config`` or ``deepspeed``, for each place that gives it one."""
    field, *keys = name.split(".")
    if field in study.training:
        yield from ((f"training.{field}", value) for value in _inside(study.training[field], keys, study.home))
    for each in visit(study.space):
        given = each.parameter.choices if isinstance(each.parameter, Choice) else [each.parameter]
        if name == each.name:
            yield from ((each.path, value) for value in given)
        elif field == each.name:
            yield from ((each.path, value) for one in given for value in _inside(one, keys, study.home))


def _inside(value: Any, keys: list[str], home: Path) -> Iterator[Any]:
    """Yield the value under these keys; a text is the name of a JSON file, which may lie beside the study."""
    if isinstance(value, str):
        try:
            value = json.loads((home / value).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return  # whoever reads it for training says what is wrong with it
    for key in keys:
        if isinstance(value, Mapping):
            value = value.get(key, value.get(f"fsdp_{key}"))
    if value is not None and not isinstance(value, Mapping):
        yield value
