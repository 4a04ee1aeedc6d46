"""A study that cannot work is refused before anything is made, with everything that is wrong, where, and what to do."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import sweepkit.check.rules
import sweepkit.driver.run
from making import sweep
from sweepkit.check import Checked, convert_numbers, find_problems, known_values
from sweepkit.check.fields.installed import read_installed
from sweepkit.check.study_file import load_study
from sweepkit.cli import running as commands
from sweepkit.study.configurations import Configurations
from sweepkit.study.errors import StudyFileError
from sweepkit.study.parameters import Choice, Float, Int
from sweepkit.study.schedule import evaluations
from sweepkit.study.study import StudyData
from sweepkit.tasks.kinds import KINDS

BROKEN: dict[str, dict[str, Any]] = YAML(typ="safe").load(Path(__file__).with_name("broken_studies.yaml"))
SECONDS = 2.0
"""Processor time that a refusal may take."""

TASK_FILE = '''
from sweepkit import Task


class Reviews(Task):
    """Its model_init takes one value of the configuration, and it names its metrics."""

    length: int = 64
    metrics: list = ["accuracy"]

    def data(self): ...

    def model_init(self, hidden_dropout_prob=0.1): ...

    def compute_metrics(self, prediction): ...


class Scored(Task):
    """It takes any configuration and says itself what it reports."""

    rows: int

    def model_init(self, **config): ...

    def reported(self):
        return frozenset({"eval_loss", "eval_score"})


class Secretive(Task):
    """What it reports, only running it can tell."""

    def model_init(self, **config): ...

    def trainer(self, **kwargs): ...
'''

BERT = {
    "model_type": "bert",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "hidden_size": 32,
    "position_embedding_type": "absolute",
}


@pytest.fixture(scope="module")
def task_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the tasks' file; one for all tests, so that it is imported once."""
    file = tmp_path_factory.mktemp("tasks") / "task.py"
    file.write_text(TASK_FILE)
    return file


@pytest.fixture
def home(project: Path, task_file: Path) -> Path:
    """Return a project folder with what the studies of this file name: a model, data and a task file."""
    (project / "model").mkdir()
    (project / "model" / "config.json").write_text(json.dumps(BERT))
    (project / "data.csv").write_text("text,label\ngood,1\nbad,0\n")
    (project / "task.py").symlink_to(task_file)
    return project


def told(text: str, home: Path, *overrides: str) -> list[str]:
    """Return what is said about a study file, without its name; empty when it loads."""
    (home / "study.yaml").write_text(text)
    try:
        load_study("study.yaml", overrides)
    except StudyFileError as error:
        return str(error).replace("study.yaml:", "").split("\n")
    return []


def study(**sections: Any) -> StudyData:
    """Return a study made in Python that has nothing wrong with it, other sections laid over it."""
    data: dict[str, Any] = {
        "name": "toy",
        "task": {"type": "text-classification", "model": "model", "data": {"path": "data.csv"}},
        "objective": {"metric": "eval_accuracy", "direction": "maximize"},
        "space": {"learning_rate": {"low": 1e-6, "high": 1e-3, "log": True}},
        "budget": {"trials": 40},
    }
    return StudyData.model_validate({**data, **sections})


def problems(**sections: Any) -> list[str]:
    return [str(problem) for problem in find_problems(study(**sections))]


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_study_is_refused_with_every_mistake_its_line_and_what_to_do(
    name: str, home: Path, task_file: Path
) -> None:
    (home / "study.yaml").write_text(BROKEN[name]["study"])
    before = sorted(home.rglob("*"))
    started = time.process_time()
    with pytest.raises(StudyFileError) as refused:
        load_study("study.yaml")
    assert time.process_time() - started < SECONDS
    assert str(refused.value).split("\n") == [
        line.replace("{home}", str(home)).replace("{task}", str(task_file)).replace("{kinds}", ", ".join(sorted(KINDS)))
        for line in BROKEN[name]["says"]
    ]
    assert sorted(home.rglob("*")) == before


@pytest.mark.real
def test_the_command_refuses_every_mistake_of_a_file_together_and_fast(home: Path) -> None:
    case = BROKEN["acceptance of what is sampled"]
    (home / "study.yaml").write_text(case["study"])
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = sweep("check", "study.yaml", cwd=home)
    output, _ = process.communicate(timeout=180)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (process.returncode, output.splitlines()) == (2, case["says"])
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < SECONDS


def test_mistakes_are_told_in_the_order_of_the_file() -> None:
    assert max(len(case["says"]) for case in BROKEN.values()) >= 6
    for case in BROKEN.values():
        lines = [int(said.split(":")[1].split()[0]) for said in case["says"]]
        assert lines == sorted(lines)


def test_a_large_closed_set_is_shown_by_what_is_near(home: Path) -> None:
    many = len(read_installed().training["optim"].choices)
    shown = "adamw_torch, adamw_torch_fused, adamw_torch_xla, adamw_torch_npu_fused"
    assert problems(training={"optim": "adamw"}) == [
        f"training.optim: expected one of {many} ({shown}, …), got adamw; did you mean adamw_torch?"
    ]


def test_a_sound_study_made_in_python_has_no_problems(home: Path) -> None:
    assert problems() == []


@pytest.mark.parametrize(
    ("space", "fitted"),
    [
        ({"num_train_epochs": {"low": 1, "high": 5}}, Float(low=1.0, high=5.0)),
        ({"num_train_epochs": {"low": 1, "high": 5, "step": 1}}, Float(low=1.0, high=5.0, step=1.0)),
        ({"num_train_epochs": {"choices": [1, 2]}}, Choice(choices=[1.0, 2.0])),
        ({"max_grad_norm": {"low": 1, "high": 8, "log": True}}, Float(low=1.0, high=8.0, log=True)),
        ({"per_device_train_batch_size": {"low": 8, "high": 32}}, Int(low=8, high=32)),
        ({"warmup_steps": {"low": 0.05, "high": 0.2}}, Float(low=0.05, high=0.2)),
        ({"warmup_steps": {"low": 0, "high": 500}}, Int(low=0, high=500)),
        ({"warmup_steps": {"choices": [0, 0.1, 100]}}, Choice(choices=[0, 0.1, 100])),
        ({"model.hidden_dropout_prob": {"low": 0, "high": 1}}, Float(low=0.0, high=1.0)),
        ({"model.hidden_size": {"low": 32, "high": 64}}, Int(low=32, high=64)),
        ({"task.max_length": {"low": 32, "high": 64}}, Int(low=32, high=64)),
    ],
)
def test_numbers_take_the_type_of_the_field_that_consumes_them(space: dict[str, Any], fitted: Any, home: Path) -> None:
    given = study(space=space)
    (found,) = convert_numbers(given).space.values()
    assert (found, type(found)) == (fitted, type(fitted))
    assert find_problems(given) == []


def test_numbers_inside_branches_and_by_hand_are_fitted_too(home: Path) -> None:
    branches = {"adamw_torch": {"adam_beta2": {"low": 0, "high": 1}, "weight_decay": 0}, "adafactor": {}}
    found = convert_numbers(
        study(space={"optim": {"choices": branches}}, training={"max_grad_norm": 1}, baseline={"adam_beta2": 1})
    )
    assert repr(found.space["optim"].choices["adamw_torch"]["adam_beta2"]) == repr(Float(low=0.0, high=1.0))
    values = (found.space["optim"].choices["adamw_torch"]["weight_decay"], found.training["max_grad_norm"])
    assert [type(value) for value in (*values, (found.baseline or {})["adam_beta2"])] == [float] * 3


def test_fitting_twice_changes_nothing(home: Path) -> None:
    once = convert_numbers(
        study(space={"num_train_epochs": {"low": 1, "high": 5}, "warmup_steps": {"low": 1, "high": 9}})
    )
    assert convert_numbers(once) == once


def test_a_hub_id_that_was_never_downloaded_takes_any_model_name(home: Path) -> None:
    task = {"type": "text-classification", "model": "someone/some-model", "data": {"name": "imdb"}}
    assert problems(task=task, space={"model.anything": {"low": 0.0, "high": 0.5}}) == []


def test_a_downloaded_hub_model_is_read_from_the_cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(home / "hub"))
    snapshot = home / "hub" / "models--someone--tiny" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps(BERT))
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    task = {"type": "text-classification", "model": "someone/tiny", "data": {"name": "imdb"}}
    assert problems(task=task, space={"model.hidden_dropout": {"low": 0.0, "high": 0.5}}) == [
        "space.model.hidden_dropout: the model's configuration has no field hidden_dropout; "
        "did you mean model.hidden_dropout_prob?"
    ]


def test_a_model_from_a_configuration_has_the_fields_of_its_type(home: Path) -> None:
    model = {"config": {"model_type": "bert", "hidden_size": 64}, "tokenizer": "model"}
    task = {"type": "text-classification", "model": model, "data": {"path": "data.csv"}}
    assert problems(task=task, space={"model.hidden_size": {"choices": [32, 64.5]}}) == [
        "space.model.hidden_size: expected a whole number, got 64.5"
    ]
    assert known_values(study(task=task))["model.hidden_size"] == 64


def test_a_searched_model_is_known_by_what_all_its_choices_have(home: Path) -> None:
    (home / "other").mkdir()
    (home / "other" / "config.json").write_text(json.dumps({"model_type": "distilbert"}))
    task = {"type": "text-classification", "data": {"path": "data.csv"}}
    space = {"task.model": {"choices": ["model", "other"]}, "model.dropout": {"low": 0.0, "high": 0.5}}
    assert problems(task=task, space=space) == ["space.model.dropout: the model's configuration has no field dropout"]
    space = {"task.model": {"choices": ["model", "./gone"]}}
    assert problems(task=task, space=space) == [f"space.task.model: ./gone: there is no file or folder {home}/gone"]


@pytest.mark.parametrize(
    ("task", "metric", "said"),
    [
        ("Reviews", "eval_accuracy", []),
        ("Scored", "eval_score", []),
        ("Secretive", "eval_anything", []),
        (
            "Scored",
            "eval_scor",
            ["objective.metric: the task reports eval_loss, eval_score, got eval_scor; did you mean eval_score?"],
        ),
    ],
)
def test_metrics_of_a_task_of_ones_own_are_read_without_running_it(
    task: str, metric: str, said: list[str], home: Path
) -> None:
    options = {"rows": 8} if task == "Scored" else {}
    spec = {"path": f"task.py:{task}", **options}
    assert problems(task=spec, objective={"metric": metric, "direction": "maximize"}) == said


def test_an_option_that_a_task_needs_may_be_searched_instead(home: Path) -> None:
    objective = {"metric": "eval_score", "direction": "maximize"}
    assert problems(task={"path": "task.py:Scored"}, objective=objective) == ["task: task.py:Scored needs rows"]
    assert (
        problems(task={"path": "task.py:Scored"}, objective=objective, space={"task.rows": {"low": 1, "high": 9}}) == []
    )


def test_linked_values_are_a_choice_with_a_name_of_its_own(home: Path) -> None:
    batch = {
        "small": {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 4},
        "large": {"per_device_train_batch_size": 32},
    }
    assert problems(space={"batch": {"choices": batch}}) == []
    assert problems(space={"batch": {"choices": batch}}, baseline={}) == []


def test_a_baseline_outside_of_the_choices_is_noted(home: Path) -> None:
    from transformers import TrainingArguments

    def notes(baseline: dict[str, Any] | None, **space: Any) -> tuple[str, ...]:
        checked = sweepkit.check.rules.examine(study(space=space, baseline=baseline))[1]
        return tuple(map(str, checked.warnings))

    default = str(TrainingArguments.default_optim)  # follows torch's version
    tail = "the baseline is trained as it is, but samplers do not learn from it, and figures of optim leave it out"
    message = f"baseline: optim is {default}, and its choices are sgd, adafactor; {tail}"
    assert notes({}, optim={"choices": ["sgd", "adafactor"]}) == (message,)
    assert notes({}, optim={"choices": {"sgd": {"weight_decay": {"low": 0.0, "high": 0.3}}, "adafactor": {}}}) == (
        message,
    )
    assert notes({"optim": "adafactor"}, optim={"choices": ["sgd", "adafactor"]}) == ()
    assert notes(None, optim={"choices": ["sgd", "adafactor"]}) == ()


@pytest.mark.parametrize(
    ("training", "count"),
    [
        ({}, 3),
        ({"num_train_epochs": 2.5}, 3),
        ({"num_train_epochs": 4, "eval_delay": 2}, 3),
        ({"max_steps": 100}, None),
        ({"eval_strategy": "steps", "max_steps": 100, "eval_steps": 30}, 4),
        ({"eval_strategy": "steps", "max_steps": 100, "eval_steps": 25, "eval_delay": 50}, 3),
        ({"eval_strategy": "steps", "max_steps": 100}, 10),
        ({"eval_strategy": "steps", "eval_steps": 0.2}, 5),
        ({"eval_strategy": "steps", "eval_steps": 0.3}, 4),
        ({"eval_strategy": "steps", "eval_steps": 50}, None),
        ({"eval_on_start": True}, 3),
    ],
)
def test_evaluations_are_counted_as_the_trainer_makes_them(
    training: dict[str, Any], count: int | None, home: Path
) -> None:
    assert evaluations(known_values(study(training=training))) == count


@pytest.mark.parametrize(
    "training",
    [
        {"eval_strategy": "steps", "eval_steps": 0.25},
        {"eval_strategy": "steps", "eval_steps": 0.25, "max_steps": 100},
    ],
)
def test_a_searched_length_is_fine_where_trials_evaluate_at_the_same_fractions(
    training: dict[str, Any], home: Path
) -> None:
    space = {"num_train_epochs": {"choices": [2, 4]}, "per_device_train_batch_size": {"choices": [8, 16]}}
    assert problems(training=training, space=space, pruner={"type": "asha"}) == []


def test_a_searched_length_is_fine_where_the_cadence_is_derived_from_it(home: Path) -> None:
    space = {"max_steps": {"choices": [100, 200]}, "eval_steps": {"expression": "max_steps // 10"}}
    assert problems(training={"eval_strategy": "steps"}, space=space, pruner={"type": "asha"}) == []


@pytest.mark.parametrize(
    "pruner",
    [
        {"type": "median"},
        {"type": "percentile", "percentile": 25},
        {"type": "asha", "min_resource": 1, "reduction_factor": 3},
        {"type": "hyperband", "max_resource": "auto"},
        {"type": "threshold", "upper": 2},
        {"type": "patient", "patience": 1, "wrapped_pruner": {"type": "median", "n_startup_trials": 2}},
        {"type": "patient", "patience": 1, "wrapped_pruner": "median"},
        {"type": "wilcoxon", "p_threshold": 0.2},
    ],
)
def test_every_pruner_takes_its_own_options(pruner: dict[str, Any], home: Path) -> None:
    assert problems(pruner=pruner, training={"num_train_epochs": 4}) == []


@pytest.mark.parametrize(
    ("pruner", "epochs", "trials", "reason"),
    [
        ({"type": "median", "n_startup_trials": 30}, 3, 40, ""),
        ({"type": "median", "n_startup_trials": 150}, 3, 400, ""),  # beyond what is made up: not judged
        ({"type": "median", "n_startup_trials": 39}, 3, 40, ""),
        ({"type": "median", "n_startup_trials": 40}, 3, 40, "it stops none of the first 40 trials, and there are 40"),
        ({"type": "asha"}, 3, 1, ""),  # a rehearsal
        ({"type": "median", "n_min_trials": 9}, 3, 9, "it stops none of the first 9 trials, and there are 9"),
        ({"type": "threshold", "lower": 0.5}, 2, 40, ""),
        ({"type": "threshold", "upper": 0.5, "n_warmup_steps": 2}, 2, 40, "stops one after evaluation 2"),
        ({"type": "asha", "min_early_stopping_rate": 1}, 5, 40, ""),
        ({"type": "asha", "min_early_stopping_rate": 1}, 4, 40, "stops one after evaluation 4"),
        ({"type": "asha", "min_resource": 1, "bootstrap_count": 2}, 2, 40, ""),
        ({"type": "hyperband", "min_resource": 2}, 3, 40, ""),
        ({"type": "hyperband", "min_resource": 0}, 3, 40, "with min_resource=0 it fails"),
        ({"type": "hyperband", "reduction_factor": 1}, 3, 40, "with reduction_factor=1 it fails"),
        ({"type": "wilcoxon", "p_threshold": 0.0}, 4, 5, "it stops none of 5 trials with 4 evaluations each"),
        (
            {"type": "patient", "patience": 1, "wrapped_pruner": {"type": "median", "n_startup_trials": 7}},
            4,
            7,
            "none of the",
        ),
    ],
)
def test_a_pruner_that_can_stop_no_trial_is_refused(
    pruner: dict[str, Any], epochs: int, trials: int, reason: str, home: Path
) -> None:
    found = problems(pruner=pruner, training={"num_train_epochs": epochs}, budget={"trials": trials})
    assert (len(found), reason in "".join(found)) == (bool(reason), True)


@pytest.mark.parametrize(
    ("sampler", "complaints"),
    [
        ({"type": "tpe", "n_ei_candidates": 0}, ["sampler.n_ei_candidates: expected 1 or more, got 0"]),
        (
            {"type": "tpe", "group": True, "multivariate": False},
            ["sampler.group: group option can only be enabled when multivariate is enabled"],
        ),
        (
            {"type": "nsga2", "population_size": 1, "mutation_prob": 2.0},
            [
                "sampler.population_size: population_size must be greater than or equal to 2",
                "sampler.mutation_prob: mutation_prob must be None or a float value within the range [0.0, 1.0]",
            ],
        ),
        ({"type": "qmc", "qmc_type": "sobl"}, ["sampler.qmc_type: the qmc_type='sobl' is invalid. Choose either"]),
    ],
)
def test_what_optunas_constructor_refuses_is_refused_option_by_option(
    sampler: dict[str, Any], complaints: list[str], home: Path
) -> None:
    found = problems(sampler=sampler)
    assert len(found) == len(complaints)
    assert all(one.startswith(start) for one, start in zip(found, complaints, strict=True))


@pytest.mark.parametrize(
    "sampler",
    [
        {"type": "random"},
        {"type": "tpe", "n_startup_trials": 5, "multivariate": True},
        {"type": "gp", "deterministic_objective": True},
        {"type": "cmaes", "popsize": 8},
        {"type": "qmc", "qmc_type": "halton", "scramble": True},
        {"type": "grid"},
        {"type": "nsga2", "population_size": 8},
    ],
)
def test_every_sampler_takes_its_own_options(sampler: dict[str, Any], home: Path) -> None:
    step = {"step": 0.01} if sampler["type"] == "grid" else {}
    space = {
        "weight_decay": {"low": 0.0, "high": 0.1, **step},
        "label_smoothing_factor": {"low": 0.0, "high": 0.1, **step},
    }
    assert problems(sampler=sampler, space=space) == []


def test_hand_picked_values_are_checked_for_the_command_line_too(home: Path) -> None:
    said = Configurations(study(), {}).problems({"learning_rate": 1.0, "lr": 1e-4}, "params")
    assert [str(problem) for problem in said] == [
        "params.learning_rate: lies outside the space: low=1e-06 to high=0.001, got 1.0",
        "params.lr: is not searched; add it to space or leave it out",
    ]


@pytest.mark.real
def test_a_missing_extra_is_told_with_its_command(home: Path) -> None:
    """In an interpreter without site-packages for peft: its finder says that there is none."""
    script = (
        "import sys, importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'peft' else find(name, *rest)\n"
        "from sweepkit.check.study_file import load_study\n"
        "load_study('study.yaml').study\n"
    )
    text = BROKEN["peft"]["study"].replace("peft.rank", "peft.r").replace("peft.lora_alpha", "weight_decay")
    (home / "study.yaml").write_text(text.replace("high: 32.0", "high: 2.0"))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=home, check=False)
    assert done.stderr.splitlines()[-1].endswith(
        "study.yaml:8 space.peft.r: LoRA needs an extra that is not installed: pip install 'sweepkit[peft]'"
    )


def test_a_tasks_file_is_read_again_when_it_was_edited(project: Path) -> None:
    file = project / "task.py"
    keys = {
        "name": "toy",
        "task": {"path": "task.py:Edited"},
        "objective": {"metric": "eval_loss", "direction": "minimize"},
        "space": {"task.width": {"low": 1, "high": 2}},
        "budget": {"trials": 1},
    }
    study = StudyData.model_validate(keys).at(project)
    told = []
    for field in ("length", "width"):
        file.write_text(f"from sweepkit import Task\n\n\nclass Edited(Task):\n    {field}: int = 1\n")
        told.append([problem.path for problem in find_problems(study)])
    assert told == [["space.task.width"], []]


class _Reached(Exception):
    """Raised in place of a run, with the checked study."""


def test_a_study_is_checked_once_however_it_is_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def counted(name: str) -> Callable[..., Any]:
        original = getattr(sweepkit.check.rules, name)

        def call(*arguments: Any) -> Any:
            calls.append(name)
            return original(*arguments)

        return call

    def run_checked(checked: Checked, **_: Any) -> None:
        raise _Reached(checked)

    steps = ["consumers_of", "convert_numbers", "known_values"]
    for name in steps:
        monkeypatch.setattr(sweepkit.check.rules, name, counted(name))
    monkeypatch.setattr(sweepkit.driver.run, "run_checked", run_checked)
    (home / "study.yaml").write_text(BROKEN["no end"]["study"] + "budget: {trials: 40}\n")
    with pytest.raises(_Reached) as from_file:
        commands.run("study.yaml")
    (checked,) = from_file.value.args
    assert (calls, checked.study.budget.trials) == (steps, 40)
    calls.clear()
    with pytest.raises(_Reached):
        sweepkit.driver.run.run(study())
    assert calls == steps
