"""W&B sweep files become studies: ten files, compared value by value, and everything that is lost on the way is told."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from ruamel.yaml import YAML

from commands import sweep
from sweepkit.check import convert_numbers, find_problems
from sweepkit.check.study_file import read_study, same
from sweepkit.check.wandb import Imported, import_sweep
from sweepkit.check.wandb_parameters import DISTRIBUTIONS, Fixed, Multiples, convert
from sweepkit.study.errors import StudyFileError
from sweepkit.study.parameters import Choice, Float, Int

SWEEPS = Path(__file__).parent / "wandb"
TASK = {"type": "text-classification", "model": "bert-base-uncased", "data": {"name": "imdb"}}
GOALS = [
    {"metric": "eval_accuracy", "direction": "maximize"},
    {"metric": "eval_runtime", "direction": "minimize"},
]
LOSS = {"metric": "eval_loss", "direction": "minimize"}
RATE = {"learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}}

MEANT: dict[str, dict[str, Any]] = {
    "bayes": {
        "name": "minilm-reviews",
        "question": "Which rate and batch size read reviews best?",
        "objective": GOALS[0],
        "space": {
            **RATE,
            "per_device_train_batch_size": {"choices": [8, 16, 32]},
            "weight_decay": {"low": 0.0, "high": 0.3},
        },
        "sampler": {"type": "gp"},
        "budget": {"trials": 40, "target": 0.95},
    },
    "grid": {
        "name": "grid",
        "objective": {"metric": "eval_f1", "direction": "maximize"},
        "training": {"lr_scheduler_type": "linear"},
        "space": {
            "learning_rate": {"choices": [2e-5, 3e-5, 5e-5]},
            "num_train_epochs": {"low": 2, "high": 4, "step": 1},
            "weight_decay": {"low": 0.0, "high": 0.3, "step": 0.1},
        },
        "sampler": {"type": "grid"},
    },
    "random": {
        "name": "random",
        "objective": LOSS,
        "training": {"max_steps": 7},
        "space": {
            "num_train_epochs": {"low": 1, "high": 5, "step": 1},
            "label_smoothing_factor": {"low": 0.0, "high": 0.2},
            "per_device_train_batch_size": {"choices": [8, 16, 64]},
            "gradient_accumulation_steps": {"choices": [1, 2]},
        },
        "sampler": {"type": "random"},
        "budget": {"trials": 12},
    },
    "nested": {
        "name": "nested",
        "objective": LOSS,
        "training": {"peft.lora_dropout": 0.1},
        "space": {
            "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
            "model.hidden_dropout_prob": {"low": 0.0, "high": 0.3},
            "model.encoder.depth": {"choices": [2, 4]},
            "peft.r": {"choices": [4, 8]},
            "task.max_length": {"choices": [64, 128]},
        },
        "sampler": {"type": "random"},
        "budget": {"trials": 9},
    },
    "distributions": {
        "name": "distributions",
        "objective": LOSS,
        "training": {"optim": "adamw_torch"},
        "space": {
            "lr_scheduler_type": {"choices": ["linear", "cosine"]},
            "per_device_train_batch_size": {"choices": [8, 16]},
            "num_train_epochs": {"low": 1, "high": 4, "step": 1},
            "max_grad_norm": {"low": 1.0, "high": 5.0},
            "label_smoothing_factor": {"low": 0.0, "high": 0.3, "step": 0.1},
            "model.hidden_size": {"low": 64, "high": 256, "step": 64},
            "learning_rate": {"low": math.exp(-12), "high": math.exp(-6), "log": True},
            "weight_decay": {"low": 1e-3, "high": 0.1, "log": True},
            "gradient_accumulation_steps": {"low": 1, "high": 20, "log": True},
            "intermediate_size_multiple": {"low": 1, "high": 8, "log": True},
            "model.intermediate_size": {"expression": "64 * intermediate_size_multiple"},
            "model.layer_norm_eps": {"low": math.exp(-9), "high": math.exp(-4), "log": True},
            "adam_epsilon": {"low": 1e-8, "high": 1e-6, "log": True},
            "model.hidden_dropout_prob": {"low": 0.1, "high": 0.3},
            "model.num_hidden_layers": {"low": 2, "high": 10, "step": 1},
            "model.initializer_range": {"low": math.exp(-5), "high": math.exp(-3), "log": True},
            "neftune_noise_alpha_multiple": {"low": 2, "high": 15, "log": True},
            "neftune_noise_alpha": {"expression": "0.5 * neftune_noise_alpha_multiple"},
            "model.attention_probs_dropout_prob": {"low": 0.0, "high": 1.0},
            "model.classifier_dropout": {"low": 0.0, "high": 1.0, "step": 0.25},
        },
        "sampler": {"type": "random"},
        "budget": {"trials": 100},
    },
    "hyperband-from-below": {
        "name": "hyperband-from-below",
        "objective": LOSS,
        "training": {"num_train_epochs": 20},
        "space": RATE,
        "pruner": {"type": "asha", "min_resource": 2, "reduction_factor": 2},
        "budget": {"trials": 30},
    },
    "hyperband-from-above": {
        "name": "hyperband-from-above",
        "objective": LOSS,
        "training": {"num_train_epochs": 27},
        "space": RATE,
        "sampler": {"type": "random"},
        "pruner": {"type": "asha", "min_resource": 3, "reduction_factor": 3},
        "budget": {"trials": 30},
    },
    "several-metrics": {
        "name": "several-metrics",
        "objective": {"metrics": GOALS},
        "space": {"model.hidden_size": {"choices": [64, 128]}},
        "budget": {"trials": 20},
    },
    "command": {
        "name": "command",
        "objective": LOSS,
        "space": {"learning_rate": {"low": 1e-4, "high": 0.1}, "bf16": {"choices": [True, False]}},
        "sampler": {"type": "random"},
        "budget": {"trials": 50},
    },
    "tutorial": {
        "name": "tutorial",
        "objective": LOSS,
        "training": {"num_train_epochs": 1},
        "space": {
            "optim": {"choices": ["adamw_torch", "sgd"]},
            "per_device_train_batch_size_multiple": {"low": 4, "high": 32, "log": True},
            "per_device_train_batch_size": {"expression": "8 * per_device_train_batch_size_multiple"},
            "learning_rate": {"low": 0.0, "high": 0.1},
        },
        "sampler": {"type": "random"},
        "budget": {"trials": 5},
    },
}
"""Sweep file → the study it means, without its task; what is not said has its default."""

LOST: dict[str, list[tuple[int, str]]] = {
    "bayes": [],
    "grid": [],
    "random": [
        (1, "metric"),
        (5, "parameters.per_device_train_batch_size"),
        (5, "parameters.per_device_train_batch_size"),
        (6, "parameters.seed"),
        (8, "parameters.gradient_accumulation_steps"),
    ],
    "nested": [
        (8, "parameters.optimizer.parameters.momentum"),
        (18, "parameters.learning_rate"),
    ],
    "distributions": [
        (18, "parameters.model.hidden_dropout_prob"),
        (19, "parameters.model.num_hidden_layers"),
        (20, "parameters.model.initializer_range"),
        (21, "parameters.neftune_noise_alpha"),
        (22, "parameters.model.attention_probs_dropout_prob"),
    ],
    "hyperband-from-below": [(4, "early_terminate.eta")],
    "hyperband-from-above": [(4, "early_terminate.max_iter"), (4, "early_terminate.strict")],
    "several-metrics": [(1, "method"), (3, "metrics[0].target"), (6, "scheduler")],
    "command": [
        (1, "run_cap"),
        (3, "program"),
        (4, "entity"),
        (5, "project"),
        (7, "metric.impute"),
        (7, "metric.name"),
        (8, "command"),
        (9, "tags"),
        (12, "parameters.output_dir"),
        (14, "early_terminate"),
    ],
    "tutorial": [(5, "parameters.optimizer"), (6, "parameters.fc_layer_size"), (7, "parameters.dropout")],
}
"""Sweep file → line and key of each thing without an equal."""


def imported(name: str, home: Path) -> Imported:
    """Return one of the sample files as a study."""
    return import_sweep(SWEEPS / f"{name}.yaml", task=TASK, home=home)


def test_every_sample_file_has_its_meaning_written_down() -> None:
    assert {file.stem for file in SWEEPS.iterdir()} == MEANT.keys() == LOST.keys()


@pytest.mark.parametrize("name", MEANT)
def test_a_sweep_file_means_the_study(project: Path, name: str) -> None:
    plain = YAML(typ="safe").load(imported(name, project).text("sweep.yaml"))
    assert plain == {**MEANT[name], "task": TASK}


@pytest.mark.parametrize("name", MEANT)
def test_what_has_no_equal_is_told_with_its_line(project: Path, name: str) -> None:
    assert sorted((told.line, told.path) for told in imported(name, project).warnings) == LOST[name]


@pytest.mark.parametrize("name", MEANT)
def test_the_written_file_loads_as_the_same_study(project: Path, name: str) -> None:
    found = imported(name, project)
    (project / "study.yaml").write_text(found.text("sweep.yaml"))
    assert same(read_study(project / "study.yaml"), convert_numbers(found.study))


@pytest.mark.parametrize("name", MEANT)
def test_the_study_passes_its_check(project: Path, name: str) -> None:
    assert find_problems(imported(name, project).study) == []


def test_the_samples_use_every_distribution() -> None:
    parameters = YAML(typ="safe").load((SWEEPS / "distributions.yaml").read_text())["parameters"]
    assert {given["distribution"] for given in parameters.values()} == DISTRIBUTIONS.keys()


def rounded(value: float, q: float) -> float:
    """Return a value as W&B quantizes it."""
    return float(round(value / q) * q)


EXACT: list[tuple[dict[str, Any], Callable[[float], float]]] = [
    ({"min": 1, "max": 6}, lambda u: min(1 + math.floor(6 * u), 6)),
    ({"min": 1.0, "max": 6}, lambda u: 1 + 5 * u),
    ({"distribution": "uniform", "min": -1, "max": 1}, lambda u: -1 + 2 * u),
    ({"distribution": "q_uniform", "min": 0.2, "max": 0.9, "q": 0.25}, lambda u: rounded(0.2 + 0.7 * u, 0.25)),
    ({"distribution": "q_uniform", "min": 1, "max": 100, "q": 30}, lambda u: rounded(1 + 99 * u, 30)),
    ({"distribution": "q_uniform", "min": 1, "max": 5}, lambda u: rounded(1 + 4 * u, 1.0)),
    ({"distribution": "log_uniform", "min": -9, "max": -2}, lambda u: math.exp(-9 + 7 * u)),
    ({"distribution": "log_uniform_values", "min": 0.1, "max": 10}, lambda u: 0.1 * 100**u),
    ({"distribution": "inv_log_uniform", "min": 2, "max": 9}, lambda u: math.exp(-(2 + 7 * u))),
    ({"distribution": "inv_log_uniform_values", "min": 0.1, "max": 10}, lambda u: 1 / (0.1 * 100**u)),
    ({"distribution": "q_log_uniform", "min": 1, "max": 4, "q": 2}, lambda u: rounded(math.exp(1 + 3 * u), 2)),
    ({"distribution": "q_log_uniform_values", "min": 16, "max": 90, "q": 8}, lambda u: rounded(16 * 5.625**u, 8)),
    ({"distribution": "beta", "a": 1, "b": 1}, lambda u: u),
    ({"distribution": "q_beta", "q": 0.2}, lambda u: rounded(u, 0.2)),
]


@pytest.mark.parametrize(("given", "quantile"), EXACT, ids=lambda each: str(each) if isinstance(each, dict) else "")
def test_a_distribution_with_an_equal_has_the_same_values(
    given: dict[str, Any], quantile: Callable[[float], float]
) -> None:
    found = convert(given)
    theirs = [quantile(float(u)) for u in numpy.linspace(0, 1, 20_001)]
    domain = found.domain
    assert found.warnings == ()
    if isinstance(domain, Multiples):
        assert {n * domain.q for n in range(domain.count.low, domain.count.high + 1)} == set(theirs)
    elif isinstance(domain, Int) or (isinstance(domain, Float) and domain.step):
        assert domain.step is not None
        ours = numpy.arange(domain.low, domain.high + domain.step / 2, domain.step)
        assert ours == pytest.approx(numpy.unique(numpy.round(theirs, 9)))
    else:
        assert isinstance(domain, Float)
        middle = math.sqrt(domain.low * domain.high) if domain.log else (domain.low + domain.high) / 2
        quarters = [min(theirs), float(numpy.median(theirs)), max(theirs)]
        assert [domain.low, middle, domain.high] == pytest.approx(quarters)


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ({"value": [1, 2]}, [1, 2]),
        ({"values": ["a"]}, "a"),
        ({"min": 3, "max": 3}, 3),
        ({"distribution": "q_uniform", "min": 5, "max": 11, "q": 8}, 8),
        ({"distribution": "normal", "mu": 0.5, "sigma": 0}, 0.5),
        ({"values": ["a", "b"], "probabilities": [0, 1]}, "b"),
    ],
)
def test_what_has_one_value_only_is_fixed(given: dict[str, Any], value: Any) -> None:
    assert convert(given).domain == Fixed(value)


def test_a_logarithmic_range_whose_first_value_rounds_to_0_begins_above_it() -> None:
    found = convert({"distribution": "q_log_uniform_values", "min": 1, "max": 64, "q": 8})
    assert found.domain == Multiples(8, Int(low=1, high=8, log=True))
    assert found.warnings == ("W&B could draw 0, which a log scale cannot; the range starts at 8",)


def test_values_of_any_kind_stay_what_they_are() -> None:
    assert convert({"values": [None, True, "x", [1], {"a": 1}]}).domain == Choice(
        choices=[None, True, "x", [1], {"a": 1}]
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("method: random\n", ":1 parameters: is required: name → what to search"),
        ("method: bays\nparameters: {lr: {value: 1}}\n", ":1 method: expected one of bayes, random, grid, custom, got"),
        ("method: grid\nparameters:\n  lr: {min: 1}\n", ":3 parameters.lr: needs value, values, min and max"),
        ("method: grid\nparameters:\n  lr: {min: 2, max: 1}\n", ":3 parameters.lr: min must not be above max"),
        ("method: grid\nparameters:\n  lr: {min: a, max: 1}\n", ":3 parameters.lr: min must be a finite number, got"),
        ("method: grid\nparameters:\n  lr: 0.1\n", ":3 parameters.lr: expected a distribution, got 0.1"),
        (
            "method: grid\nparameters:\n  lr: {distribution: log_unifrom, min: 1, max: 2}\n",
            ":3 parameters.lr: there is no distribution log_unifrom; did you mean log_uniform?",
        ),
        (
            "method: grid\nparameters:\n  lr: {distribution: log_uniform_values, min: 0, max: 2}\n",
            ":3 parameters.lr: log_uniform_values needs min above 0, got 0",
        ),
        (
            "method: grid\nparameters:\n  lr: {distribution: log_uniform, min: 0, max: 2000}\n",
            ":3 parameters.lr: log_uniform takes exponents of e, and e to the power of these is not a finite number",
        ),
        (
            "method: grid\nparameters: {lr: {value: 1}}\nearly_terminate: {type: hyperband, max_iter: 9}\n",
            ":3 early_terminate: hyperband needs min_iter, or max_iter and s",
        ),
        ("method: grid\nparameters: {lr: {value: 1}}\nrun_cap: many\n", ":3 run_cap: expected a whole number above 0"),
        ("method: grid\nparameters: {lr: {value: 1}}\nmetric: {goal: up}\n", ":3 metric: expected a name and a goal"),
    ],
)
def test_what_wandb_refuses_is_refused_with_its_line(project: Path, text: str, told: str) -> None:
    (project / "sweep.yaml").write_text(text)
    with pytest.raises(StudyFileError) as error:
        import_sweep(Path("sweep.yaml"), task=TASK, home=project)
    assert told in str(error.value)


def test_the_command_writes_a_study_and_prints_what_was_lost(project: Path) -> None:
    done = sweep("import", str(SWEEPS / "tutorial.yaml"), "--output", "studies/mine/study.yaml")
    assert done.exit_code == 0
    assert (
        f"warning: {SWEEPS / 'tutorial.yaml'}:6 parameters.fc_layer_size: is not a TrainingArguments field"
        in done.stderr
    )
    assert "wrote studies/mine/study.yaml" in done.stdout
    assert "fill in task.model\n  fill in task.data" in done.stdout
    written = (project / "studies" / "mine" / "study.yaml").read_text()
    assert "# - parameters.fc_layer_size: is not a TrainingArguments field; left out\n" in written


def test_the_command_names_model_and_data_as_the_study_file_must(project: Path) -> None:
    (project / "my.csv").write_text("text,label\n")
    done = sweep("import", str(SWEEPS / "bayes.yaml"), "-o", "a/study.yaml", "--data", "my.csv", "--model", "bert-base")
    assert "to do" not in done.stdout
    task = read_study("a/study.yaml").task
    assert task.options == {"model": "bert-base", "data": {"path": "../my.csv"}}


def test_a_file_that_exists_is_not_overwritten(project: Path) -> None:
    (project / "study.yaml").write_text("mine")
    done = sweep("import", str(SWEEPS / "bayes.yaml"))
    assert str(done.exception) == "study.yaml exists already and is not overwritten; choose another file with --output"
    assert (project / "study.yaml").read_text() == "mine"


def test_nothing_is_written_of_a_sweep_that_wandb_would_refuse(project: Path) -> None:
    (project / "sweep.yaml").write_text("method: random\n")
    assert isinstance(sweep("import", "sweep.yaml").exception, StudyFileError)
    assert not (project / "study.yaml").exists()
