"""An accelerate config file lies beneath a study: its settings are the study's, and each of its keys counts or is named."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

import pytest

import toys
from sweepkit import Study
from sweepkit.check.study_file import load_study, read_study, same, to_yaml
from sweepkit.study.errors import StudyFileError
from sweepkit.study.study import StudyData

STUDY = """\
name: toy
task: {type: text-classification, model: model, data: {path: data.csv}}
objective: {metric: eval_accuracy, direction: maximize}
space: {learning_rate: {low: 1e-6, high: 1e-3, log: true}}
budget: {trials: 4}
backend: {accelerate: conf/machine.yaml}
"""
WRITTEN = """\
compute_environment: LOCAL_MACHINE
debug: false
downcast_bf16: 'no'
enable_cpu_affinity: false
machine_rank: 0
main_training_function: main
num_machines: 1
num_processes: 2
rdzv_backend: static
same_network: true
tpu_env: []
tpu_use_cluster: false
tpu_use_sudo: false
"""
"""What ``accelerate config`` writes whatever one answers, and two processes."""
FSDP = """\
distributed_type: FSDP
mixed_precision: bf16
use_cpu: false
fsdp_config:
  fsdp_activation_checkpointing: false
  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP
  fsdp_cpu_ram_efficient_loading: false
  fsdp_offload_params: true
  fsdp_reshard_after_forward: false
  fsdp_transformer_layer_cls_to_wrap: BertLayer,BertEmbeddings
  fsdp_version: 2
"""
FSDP_1 = """\
distributed_type: FSDP
fsdp_config:
  fsdp_auto_wrap_policy: SIZE_BASED_WRAP
  fsdp_backward_prefetch: BACKWARD_POST
  fsdp_cpu_ram_efficient_loading: false
  fsdp_min_num_params: 2000
  fsdp_sharding_strategy: 1
  fsdp_sync_module_states: false
  fsdp_use_orig_params: true
"""
ZERO = """\
distributed_type: DEEPSPEED
mixed_precision: fp16
use_cpu: false
deepspeed_config:
  gradient_accumulation_steps: 4
  gradient_clipping: 0.5
  offload_optimizer_device: cpu
  offload_param_device: none
  zero3_init_flag: false
  zero_stage: 2
"""


@pytest.fixture
def home(project: Path, in_this_process: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a project folder, which is the current one, with a study that names an accelerate file."""
    for folder in ("model", "conf"):
        (project / folder).mkdir()
    (project / "model" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    toys.tiny_csv(project / "data.csv", 4)
    (project / "study.yaml").write_text(STUDY)
    monkeypatch.chdir(project)
    return project


def read(home: Path, config: str, study: str = STUDY, *overrides: str) -> StudyData:
    (home / "conf/machine.yaml").write_text(config)
    (home / "study.yaml").write_text(study)
    return read_study(home / "study.yaml", overrides)


def problems(home: Path, config: str, study: str = STUDY) -> list[str]:
    (home / "conf/machine.yaml").write_text(config)
    (home / "study.yaml").write_text(study)
    with pytest.raises(StudyFileError) as caught:
        load_study("study.yaml")
    return [str(problem) for problem in caught.value.problems]


def launched(home: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The variables that ``accelerate launch`` would give a script under the same file."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils import launch

    monkeypatch.setattr(launch, "is_port_in_use", lambda port: False)
    args = launch_command_parser().parse_args(["--config_file", str(home / "conf/machine.yaml"), "train.py"])
    args, defaults, _ = _validate_launch_command(args)
    if args.use_deepspeed:
        args.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
        found = launch.prepare_deepspeed_cmd_env(args)[1]
    else:
        found = launch.prepare_multi_gpu_env(args) if args.use_fsdp else launch.prepare_simple_launcher_cmd_env(args)[1]
    return {name: value for name, value in found.items() if os.environ.get(name) != value}


def test_a_file_as_accelerate_writes_it_is_the_same_study_written_out(home: Path) -> None:
    study = read(home, WRITTEN + FSDP)
    assert study.backend.model_dump() == {**StudyData(**BARE).backend.model_dump(), "ranks_per_trial": 2}
    assert study.training == {
        "bf16": True,
        "fsdp": True,
        "fsdp_config": {
            "version": 2,
            "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "transformer_layer_cls_to_wrap": ["BertLayer", "BertEmbeddings"],
            "activation_checkpointing": False,
            "cpu_ram_efficient_loading": False,
            "cpu_offload": True,
            "reshard_after_forward": False,
        },
    }
    assert load_study("study.yaml").warnings == ()
    (home / "written.yaml").write_text(to_yaml(study))
    assert "accelerate" not in (home / "written.yaml").read_text()
    (home / "conf/machine.yaml").unlink()
    assert same(read_study(home / "written.yaml"), study)


BARE = {
    "name": "toy",
    "task": {"type": "text-classification", "model": "model", "data": {"path": "data.csv"}},
    "objective": {"metric": "eval_accuracy", "direction": "maximize"},
}


@pytest.mark.parametrize(
    "config",
    [
        FSDP,
        FSDP_1,
        "distributed_type: FSDP\nfsdp_config: {fsdp_version: 2}\n",
        "distributed_type: FSDP\nfsdp_config: {fsdp_version: 2, fsdp_auto_wrap_policy: size_based_wrap}\n",
    ],
    ids=["version 2", "version 1", "bare", "by size"],
)  # fmt: skip
def test_fsdp_is_what_accelerate_launch_makes_of_the_file(
    home: Path, monkeypatch: pytest.MonkeyPatch, config: str
) -> None:
    from accelerate.utils import FullyShardedDataParallelPlugin
    from transformers import TrainingArguments

    study = read(home, WRITTEN + config)
    environment = launched(home, monkeypatch)
    plain = TrainingArguments("out", report_to="none", use_cpu=True, **{**study.training, "bf16": False})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        here = FullyShardedDataParallelPlugin(**plain.fsdp_plugin_args)
        for name, value in environment.items():
            monkeypatch.setenv(name, value.removesuffix(".0"))  # accelerate before 1.15 cannot read its own 100000000.0
        there = FullyShardedDataParallelPlugin()
    assert environment["ACCELERATE_MIXED_PRECISION"] == ("bf16" if study.training.get("bf16") else "no")
    ours, theirs = vars(here), vars(there)
    for name in ("state_dict_type", "state_dict_config", "optim_state_dict_config", "cpu_ram_efficient_loading"):
        ours.pop(name), theirs.pop(name)
    for each in (ours, theirs):
        each["reshard_after_forward"] = each.pop("sharding_strategy") or each["reshard_after_forward"]
        each.update(cpu_offload=str(each["cpu_offload"]), min_num_params=each["min_num_params"] or 0)
    assert ours == theirs


def test_deepspeed_is_what_accelerate_launch_makes_of_the_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.utils import DeepSpeedPlugin
    from accelerate.utils.deepspeed import HfDeepSpeedConfig

    study = read(home, WRITTEN + ZERO)
    assert study.backend.ranks_per_trial == 2
    settings = {name: value for name, value in study.training.items() if name != "deepspeed"}
    assert settings == {"fp16": True, "gradient_accumulation_steps": 4, "max_grad_norm": 0.5}
    for name, value in launched(home, monkeypatch).items():
        monkeypatch.setenv(name, value)
    theirs = DeepSpeedPlugin().hf_ds_config
    ours = HfDeepSpeedConfig(study.training["deepspeed"])
    for key in ("stage", "offload_optimizer.device", "offload_param.device"):
        assert ours.get_value(f"zero_optimization.{key}", "none") == theirs.get_value(f"zero_optimization.{key}")
    assert (theirs.get_value("gradient_accumulation_steps"), theirs.get_value("gradient_clipping")) == (4, 0.5)


def test_a_deepspeed_file_lies_beside_the_accelerate_file_and_becomes_part_of_the_study(home: Path) -> None:
    own = {"zero_optimization": {"stage": 2}, "train_batch_size": "auto"}
    (home / "conf/zero.json").write_text(json.dumps(own))
    kind = "distributed_type: DEEPSPEED\n"
    study = read(
        home, f"{WRITTEN}{kind}deepspeed_config: {{deepspeed_config_file: zero.json, zero3_init_flag: true}}\n"
    )
    assert study.training == {"deepspeed": own}
    (home / "conf/zero.json").write_text("{")
    [found] = problems(
        home, f"{WRITTEN}{kind}deepspeed_config:\n  deepspeed_config_file: zero.json\n  zero_stage: 2\n"
    )[:1]
    assert found.startswith("conf/machine.yaml:16 deepspeed_config.deepspeed_config_file: cannot read zero.json")


@pytest.mark.parametrize(
    ("config", "training", "backend"),
    [
        ("distributed_type: 'NO'\nuse_cpu: true\n", {"use_cpu": True}, {"gpus_per_trial": 0}),
        ("distributed_type: NO\nuse_cpu: no\nmixed_precision: no\n", {}, {}),
        ("distributed_type: MULTI_CPU\nnum_processes: 3\n", {"use_cpu": True}, {"ranks_per_trial": 3, "gpus_per_trial": 0}),
        ("distributed_type: MULTI_GPU\nnum_processes: 4\nfp16: true\n", {"fp16": True}, {"ranks_per_trial": 4}),
        ('{"distributed_type": "MULTI_GPU", "num_processes": 2, "gpu_ids": "all"}', {}, {"ranks_per_trial": 2}),
        (
            "distributed_type: NO\ndynamo_config: {dynamo_backend: INDUCTOR, dynamo_mode: max-autotune}\n",
            {"torch_compile": True, "torch_compile_backend": "inductor", "torch_compile_mode": "max-autotune"},
            {},
        ),
        ("distributed_type: NO\ndynamo_config: {dynamo_backend: 'NO'}\n", {}, {}),
        ("distributed_type: NO\ndynamo_backend: EAGER\n", {"torch_compile": True, "torch_compile_backend": "eager"}, {}),
    ],
)  # fmt: skip
def test_each_setting_has_its_name_in_a_study(
    home: Path, config: str, training: dict[str, Any], backend: dict[str, Any]
) -> None:
    study = read(home, config)
    assert study.training == training
    assert study.backend.model_dump(exclude_defaults=True) == backend
    assert load_study("study.yaml").warnings == () or study.backend.ranks_per_trial > 1


@pytest.mark.parametrize(
    ("keys", "gone", "kept"),
    [
        ("training: {fsdp: false}\n", ("fsdp_config",), {"fsdp": False, "bf16": True}),
        ("training: {deepspeed: {zero_optimization: {stage: 2}}}\n", ("fsdp", "fsdp_config"), {"bf16": True}),
        ("training: {fp16: true}\n", ("bf16",), {"fp16": True, "fsdp": True}),
        ("training: {bf16: false}\n", (), {"bf16": False, "fsdp": True}),
        ("training: {fsdp_config: {version: 1}}\n", (), {"fsdp_config": {"version": 1}, "fsdp": True}),
        ("training: {torch_compile: false}\n", ("torch_compile_backend",), {"torch_compile": False}),
    ],
)
def test_what_the_study_says_wins_over_the_file_with_all_that_goes_with_it(
    home: Path, keys: str, gone: tuple[str, ...], kept: dict[str, Any]
) -> None:
    study = read(home, f"{WRITTEN}{FSDP}dynamo_backend: INDUCTOR\n", STUDY + keys)
    assert not {*gone} & {*study.training}
    assert {name: study.training[name] for name in kept} == kept


def test_what_the_study_searches_or_an_option_sets_wins_over_the_file(home: Path) -> None:
    searched = STUDY.replace("space: {", "space: {bf16: {choices: [true, false]}, ")
    inside = searched.replace("space: {", "space: {fsdp_config.reshard_after_forward: {choices: [true, false]}, ")
    study = read(home, WRITTEN + FSDP, inside, "backend.ranks_per_trial=4")
    assert "bf16" not in study.training
    assert "reshard_after_forward" not in study.training["fsdp_config"]
    assert study.training["fsdp_config"]["cpu_offload"] is True
    assert study.backend.ranks_per_trial == 4
    accumulated = STUDY.replace("space: {", "space: {gradient_accumulation_steps: {choices: [1, 2]}, ")
    assert "gradient_accumulation_steps" not in read(home, WRITTEN + ZERO, accumulated).training
    cpus = "distributed_type: MULTI_CPU\nnum_processes: 2\n"
    assert read(home, cpus, STUDY, "training.use_cpu=false").backend.gpus_per_trial == "auto"
    assert read(home, cpus, STUDY, "backend.gpus_per_trial=2").training == {}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("", "conf/machine.yaml:1: expected keys with values, but it is empty"),
        ("- FSDP\n", "conf/machine.yaml:1: expected keys with values, but it holds ['FSDP'] (a list)"),
        ("a: [\n", "conf/machine.yaml:2: is not valid YAML"),
        ("num_processes: 2\n", "conf/machine.yaml:1 distributed_type: expected NO, MULTI_CPU, MULTI_GPU, FSDP or"),
        ("use_cpu: true\ndistributed_type: XLA\n", "conf/machine.yaml:2 distributed_type: expected NO,"),
        ("distributed_type: MEGATRON_LM\n", "conf/machine.yaml:1 distributed_type: expected NO,"),
        ("distributed_type: [FSDP]\n", "conf/machine.yaml:1 distributed_type: expected NO,"),
        ("compute_environment: AMAZON_SAGEMAKER\n", "conf/machine.yaml:1 compute_environment: expected LOCAL_MACHINE"),
        ("distributed_type: MULTI_GPU\n", "conf/machine.yaml:1 num_processes: MULTI_GPU needs a whole number above 0"),
        ("distributed_type: FSDP\nnum_processes: two\n", "conf/machine.yaml:2 num_processes: FSDP needs"),
        ("distributed_type: NO\nnum_machines: 2\n", "conf/machine.yaml:2 num_machines: the ranks of a trial share one"),
        ("distributed_type: NO\nmixed_precision: fp8\n", "conf/machine.yaml:2 mixed_precision: expected no, fp16 or bf16"),
        ("distributed_type: NO\nmixed_precison: bf16\n", "accelerate has no such key; did you mean mixed_precision?"),
        (
            "distributed_type: FSDP\nnum_processes: 2\nfsdp_config:\n  fsdp_version: 2\n  fsdp_offload_param: true\n",
            "conf/machine.yaml:5 fsdp_config.fsdp_offload_param: accelerate has no such option of FSDP; did you mean",
        ),
        (
            "distributed_type: FSDP\nnum_processes: 2\nfsdp_config: {fsdp_reshard_after_forward: SHARD_GRAD_OP}\n",
            "expected FULL_SHARD, got SHARD_GRAD_OP: TrainingArguments pass no other on to FSDP 1",
        ),
        (
            "distributed_type: FSDP\nnum_processes: 2\nfsdp_config: true\n",
            "conf/machine.yaml:3 fsdp_config: expected keys with values, got true",
        ),
        (
            "distributed_type: FSDP\nnum_processes: 2\nparallelism_config: {parallelism_config_tp_size: 2}\n",
            "conf/machine.yaml:3 parallelism_config.parallelism_config_tp_size: expected 1, got 2",
        ),
        (
            "distributed_type: DEEPSPEED\nnum_processes: 2\ndeepspeed_config: {deepspeed_config_file: gone.json}\n",
            "deepspeed_config.deepspeed_config_file: cannot read gone.json",
        ),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_kept_to_is_refused_with_its_line(home: Path, config: str, expected: str) -> None:
    assert any(expected in problem for problem in problems(home, config)), problems(home, config)


def test_a_value_that_breaks_a_rule_of_the_study_is_told_where_the_file_gives_it(home: Path) -> None:
    found = problems(home, WRITTEN.replace("num_processes: 2", "num_processes: 1") + FSDP)
    assert found == [
        "conf/machine.yaml:14 training.fsdp: spreads a model over the ranks of a trial; set backend.ranks_per_trial"
    ]
    found = problems(home, f"{WRITTEN}use_cpu: true\n{FSDP_1}")
    assert found == [
        "conf/machine.yaml:16 training.fsdp_config: FSDP 1 shards on GPUs alone; without them, use version 2"
    ]
    [found] = problems(home, "distributed_type: NO\n", STUDY.replace("machine.yaml", "gone.yaml"))
    assert found == f"study.yaml:6 backend.accelerate: there is no file conf/gone.yaml (looked in {home})"
    [found] = problems(home, "distributed_type: NO\n", STUDY.replace("conf/machine.yaml", "7"))
    assert found.startswith("study.yaml:6 backend.accelerate: expected text, got 7")


def test_what_has_no_effect_here_is_named_with_its_reason(home: Path) -> None:
    odd = WRITTEN.replace("machine_rank: 0", "machine_rank: 1").replace("debug: false", "debug: true")
    more = "gpu_ids: 0,1\nmain_process_port: 29501\nuse_cpu: true\nfsdp_config: {fsdp_version: 2}\n"
    read(home, f"{odd}{more}distributed_type: MULTI_CPU\n")
    said = [f"{each.line} {each.path}" for each in load_study("study.yaml").warnings]
    assert said == ["2 debug", "5 machine_rank", "14 gpu_ids", "15 main_process_port", "17 fsdp_config"]
    saved = FSDP.replace("fsdp_version: 2", "fsdp_version: 2\n  fsdp_state_dict_type: SHARDED_STATE_DICT").replace(
        "use_cpu: false", "use_cpu: true"
    )
    read(
        home,
        f"{WRITTEN}{saved}  fsdp_use_orig_params: true\n  fsdp_sharding_strategy: FULL_SHARD\n  fsdp_ignored_modules: head\n",
    )
    assert [each.message for each in load_study("study.yaml").warnings] == [
        "has no effect here: best/ is one whole model, FULL_STATE_DICT",
        "has no effect here: FSDP 2 has no such option",
        *["has no effect here: TrainingArguments have no such option"] * 2,
    ]


def test_a_study_in_python_takes_the_file_and_its_recipe_from_the_current_folder(home: Path) -> None:
    (home / "conf/machine.yaml").write_text(f"{WRITTEN}{FSDP}debug: true\n".replace("debug: false\n", "", 1))
    with pytest.warns(UserWarning, match=r"machine.yaml:\d+ debug: has no effect"):
        study = Study(**BARE, backend={"accelerate": "conf/machine.yaml", "parallel": 1}, sweep="finetune-adamw")
    assert (study.backend.ranks_per_trial, study.backend.parallel, study.training["bf16"]) == (2, 1, True)
    assert "learning_rate" in study.space
    with pytest.raises(StudyFileError, match="there is no file gone"):
        Study(**BARE, backend={"accelerate": "gone.yaml"})
