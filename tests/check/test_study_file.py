"""A study file becomes a Study and back: recipes beneath, --set on top, every problem with the place it was written."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

import toys
from sweepkit.check import check, known_values
from sweepkit.check.reference import explain
from sweepkit.check.study_file import load_study, read_study, same, to_yaml
from sweepkit.check.yaml import key_text, read, split
from sweepkit.study.errors import StudyFileError
from sweepkit.study.formulas import derive
from sweepkit.study.parameters import Choice, Expression, Float, Int
from sweepkit.study.study import StudyData, TaskSpec
from sweepkit.tasks.kinds import KINDS
from sweepkit.tasks.load import task_class

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "studies").rglob("*.yaml"))
RECIPES = sorted((ROOT / "sweeps").glob("*.yaml"))
COLD_SECONDS = 1.0
"""Processor time that reading and checking a study may take in a fresh interpreter, its own start included."""

STUDY = """\
name: toy
task: {type: text-classification, model: model, data: {path: data.csv}}
objective: {metric: eval_accuracy, direction: maximize}
training: {num_train_epochs: 3}
space:
  learning_rate: {low: 1e-6, high: 1e-3, log: true}
  model.hidden_dropout_prob: {low: 0.0, high: 0.3}
enqueue:
  - {learning_rate: 1e-4}
budget: {trials: 40}
"""


@pytest.fixture
def home(project: Path) -> Path:
    """Return a project folder with a model's configuration, data and ``study.yaml``."""
    (project / "model").mkdir()
    (project / "model" / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_dropout_prob": 0.1}))
    toys.tiny_csv(project / "data.csv", 4)
    (project / "study.yaml").write_text(STUDY)
    return project


def told(file: str, *overrides: str, check: bool = True) -> list[str]:
    with pytest.raises(StudyFileError) as refused:
        (load_study if check else read_study)(file, overrides)
    return str(refused.value).split("\n")


# Reading


def test_a_study_file_is_read_with_numbers_as_their_fields_take_them(home: Path) -> None:
    study = load_study("study.yaml").study
    assert study.training == {"num_train_epochs": 3.0}
    assert study.space == {
        "learning_rate": Float(low=1e-6, high=1e-3, log=True),
        "model.hidden_dropout_prob": Float(low=0.0, high=0.3),
    }
    assert (study.home, study.place.root) == (home, home)


def test_relative_paths_start_at_the_study_file_from_wherever_it_is_loaded(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_study(home / "study.yaml").study.home == home


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-5", 1e-5), ("no", "no"), ("yes", "yes"), ("0o17", 15), ("012", 12), ("~", None), (".inf", float("inf"))],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    found = read(f"a: {text}", "x").data["a"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "study.yaml:1: expected keys with values, but it is empty"),
        ("- a\n", "study.yaml:1: expected keys with values, but it holds ['a'] (a list)"),
        ("a: 1\n---\nb: 2\n", "study.yaml:2: is not valid YAML: but found another document (column 1 of '---')"),
        (b"\xff\xfe\x00", "study.yaml: cannot be read: it is not UTF-8 text"),
    ],
)
def test_what_is_no_mapping_is_refused(content: str | bytes, said: str, home: Path) -> None:
    (home / "study.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert told("study.yaml") == [said]


def test_a_missing_file_and_a_folder_are_told_apart(home: Path) -> None:
    assert told("stdy.yaml") == ["stdy.yaml: there is no such file"]
    assert told(".") == [".: is a folder, not a study file; did you mean study.yaml?"]


def test_check_can_be_left_out_but_not_the_rules_of_the_data(home: Path) -> None:
    (home / "study.yaml").write_text(STUDY.replace("hidden_dropout_prob", "hidden").replace("high: 0.3", "high: 0.0"))
    assert told("study.yaml", check=False) == [
        "study.yaml:7 space.model.hidden: low must be below high, got low=0.0 and high=0.0"
    ]
    (home / "study.yaml").write_text(STUDY.replace("hidden_dropout_prob", "hidden"))
    assert list(read_study("study.yaml").space) == ["learning_rate", "model.hidden"]


def test_paths_are_written_as_they_are_found() -> None:
    document = read("space:\n  model.x:\n    choices:\n      a.b:\n        y: {low: 1}\nenqueue:\n  - {z: 1}\n", "f")
    keys = ("space", "model.x", "choices", "a.b", "y", "low")
    assert key_text(keys) == "space.model.x.a.b.y.low"
    assert document.locate("space.model.x.a.b.y.low") == keys
    assert document.locate("enqueue[0].z") == ("enqueue", 0, "z")
    assert document.locate("space.nothing.here") == ("space",)
    assert split("enqueue.0.z") == split("enqueue[0].z") == ["enqueue", 0, "z"]


# --set


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("budget.trials=3", lambda study: study.budget.trials == 3),
        ("budget.hours=1e-1", lambda study: study.budget.hours == 0.1),
        ("sampler.type=random", lambda study: study.sampler.type == "random"),
        ("space.learning_rate.low=1e-5", lambda study: study.space["learning_rate"].low == 1e-5),
        (
            "space.model.hidden_dropout_prob.low=0.1",
            lambda study: study.space["model.hidden_dropout_prob"] == Float(low=0.1, high=0.3),
        ),
        (
            "space.model.attention_probs_dropout_prob={low: 0.0, high: 0.5}",
            lambda study: study.space["model.attention_probs_dropout_prob"] == Float(low=0.0, high=0.5),
        ),
        ("training.model.hidden_size=64", lambda study: study.training["model.hidden_size"] == 64),
        (
            "training.lr_scheduler_kwargs.num_cycles=2",
            lambda study: study.training["lr_scheduler_kwargs"] == {"num_cycles": 2},
        ),
        ("enqueue[0].learning_rate=2e-4", lambda study: study.enqueue == [{"learning_rate": 2e-4}]),
        ("enqueue.0.learning_rate=2e-4", lambda study: study.enqueue == [{"learning_rate": 2e-4}]),
        ("task.max_length=32", lambda study: study.task.options["max_length"] == 32),
        ("question=a = b", lambda study: study.question == "a = b"),
        ("constraints=[learning_rate < 1]", lambda study: study.constraints == ["learning_rate < 1"]),
    ],
)
def test_a_key_is_set_from_the_command_line(override: str, found: Any, home: Path) -> None:
    assert found(load_study("study.yaml", [override]).study)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("budget.trials=ten", "--set budget.trials: expected a whole number, got 'ten' (text)"),
        ("bugdet.trials=3", "--set bugdet.trials bugdet: unknown key; did you mean budget?"),
        ("trainingx", "--set: expected KEY=VALUE, got 'trainingx'"),
        ("=3", "--set: expected KEY=VALUE, got '=3'"),
        (
            "budget.trials={",
            "--set budget.trials: is not valid YAML: expected the node content, but found '<stream end>' "
            "(column 2 of '{')",
        ),
        ("name.first=3", "--set name.first: name holds 'toy', which has no key first"),
        ("enqueue.3.x=3", "--set enqueue.3.x: expected a place from 0 to 0 in the list, got 3"),
        (
            "space.learning_rate.low=1",
            "--set space.learning_rate.low space.learning_rate: low must be below high, got low=1.0 and high=0.001",
        ),
        (
            "training.learning_rat=1",
            "--set training.learning_rat: is not a TrainingArguments field; did you mean learning_rate?",
        ),
    ],
)
def test_a_mistake_on_the_command_line_is_told_with_its_option(override: str, said: str, home: Path) -> None:
    told_last = told("study.yaml", override)[-1]
    assert told_last == said


def test_what_is_fixed_on_the_command_line_is_no_longer_searched(home: Path) -> None:
    study = load_study("study.yaml", ["training.learning_rate=1e-4", "enqueue=[]"]).study
    assert (study.training["learning_rate"], list(study.space)) == (1e-4, ["model.hidden_dropout_prob"])


def test_another_sampler_leaves_the_options_of_the_first_behind_but_keeps_the_seed(home: Path) -> None:
    (home / "study.yaml").write_text(STUDY + "sampler: {type: tpe, n_startup_trials: 5, seed: 7}\n")
    study = load_study("study.yaml", ["sampler.type=gp", "sampler.deterministic_objective=true"]).study
    assert (study.sampler.type, study.sampler.seed, study.sampler.options) == (
        "gp",
        7,
        {"deterministic_objective": True},
    )


# Recipes


def recipe(home: Path, text: str, *, name: str = "mine", study: str = "") -> None:
    (home / "sweeps").mkdir(exist_ok=True)
    (home / "sweeps" / f"{name}.yaml").write_text(text)
    (home / "study.yaml").write_text(STUDY + f"sweep: {name}\n" + study)


def test_a_recipe_lies_beneath_the_study_key_by_key(home: Path) -> None:
    recipe(
        home,
        "space:\n  learning_rate: {choices: [1e-5]}\n  weight_decay: {low: 0.0, high: 0.1}\n"
        "budget: {trials: 7, hours: 2}\nconstraints: [learning_rate < 1]\ntraining: {adam_beta2: 0.98}\n",
        study="constraints: [learning_rate < 2]\n",
    )
    study = load_study("study.yaml").study
    assert study.space == {
        "learning_rate": Float(low=1e-6, high=1e-3, log=True),
        "weight_decay": Float(low=0.0, high=0.1),
        "model.hidden_dropout_prob": Float(low=0.0, high=0.3),
    }
    assert (study.budget.trials, study.budget.hours) == (40, 2.0)
    assert (study.constraints, study.sweep) == (["learning_rate < 2"], "mine")
    assert study.training == {"adam_beta2": 0.98, "num_train_epochs": 3.0}


def test_what_the_study_fixes_a_recipe_does_not_search_and_the_other_way_round(home: Path) -> None:
    recipe(
        home,
        "space:\n  num_train_epochs: {choices: [2, 3]}\n  weight_decay: {low: 0.0, high: 0.1}\n"
        "training: {learning_rate: 1e-5, adam_beta2: 0.98}\nbaseline: {num_train_epochs: 2, weight_decay: 0.01}\n",
    )
    study = load_study("study.yaml").study
    assert set(study.space) == {"learning_rate", "model.hidden_dropout_prob", "weight_decay"}
    assert (study.training, study.baseline) == ({"num_train_epochs": 3.0, "adam_beta2": 0.98}, {"weight_decay": 0.01})


def test_another_pruner_takes_nothing_from_the_recipes(home: Path) -> None:
    recipe(home, "pruner: {type: asha, reduction_factor: 3}\n", study="pruner: {type: median}\n")
    assert load_study("study.yaml").study.pruner.options == {}
    recipe(home, "pruner: {type: asha, reduction_factor: 3}\n", study="pruner: {type: asha, min_resource: 2}\n")
    assert load_study("study.yaml").study.pruner.options == {"reduction_factor": 3, "min_resource": 2}


def test_a_recipes_sampler_and_pruner_give_way_to_search_and_its_search_to_them(home: Path) -> None:
    recipe(home, "sampler: {type: tpe, seed: 3}\npruner: {type: asha}\n", study="search: auto\n")
    study = load_study("study.yaml").study
    assert (study.sampler.type, study.sampler.seed, study.pruner.type) == ("random", 3, "freeze-thaw")
    (home / "again.yaml").write_text(to_yaml(study))
    assert "search" not in study.model_dump() and same(load_study("again.yaml").study, study)
    recipe(home, "search: auto\n", study="pruner: {type: median}\n")
    study = load_study("study.yaml").study
    assert (study.sampler.type, study.pruner.type) == ("tpe", "median")
    recipe(home, "search: auto\n", study="sampler: {seed: 3}\n")
    study = load_study("study.yaml").study
    assert (study.sampler.type, study.sampler.seed, study.pruner.type) == ("random", 3, "freeze-thaw")


@pytest.mark.parametrize(
    ("written", "given", "means"),
    [
        ("search: auto\n", "pruner.type=asha", ("tpe", 0, "asha")),
        ("search: auto\n", "sampler.type=qmc", ("qmc", 0, "none")),
        ("search: auto\n", "sampler.seed=5", ("random", 5, "freeze-thaw")),
        ("sampler: {type: tpe, seed: 4}\npruner: {type: asha}\n", "search=auto", ("random", 4, "freeze-thaw")),
    ],
)
def test_an_option_wins_over_search_and_search_over_sampler_and_pruner(
    home: Path, written: str, given: str, means: tuple[str, int, str]
) -> None:
    (home / "study.yaml").write_text(STUDY + written)
    study = load_study("study.yaml", [given]).study
    assert (study.sampler.type, study.sampler.seed, study.pruner.type) == means


def test_mistakes_of_a_recipe_are_told_with_its_own_file_and_line(home: Path) -> None:
    recipe(home, "space:\n  weight_decay: {low: 0.2, high: 0.1}\nobjective: {metric: eval_loss}\nbudget: {trails: 3}\n")
    keys = (
        "training, space, constraints, duplicates, search, sampler, pruner, baseline, enqueue, budget, checkpoints, "
        "retries, confirm"
    )
    assert told("study.yaml") == [
        "sweeps/mine.yaml:2 space.weight_decay: low must be below high, got low=0.2 and high=0.1",
        f"sweeps/mine.yaml:3 objective: a recipe says how to search; expected one of {keys}",
        "sweeps/mine.yaml:4 budget.trails: unknown key; did you mean trials?",
    ]


def test_a_recipe_may_be_named_by_its_path(home: Path) -> None:
    (home / "how.yaml").write_text("budget: {hours: 3}\n")
    assert load_study("study.yaml", ["sweep=./how.yaml"]).study.budget.hours == 3.0
    assert told("study.yaml", "sweep=./who.yaml") == [f"--set sweep: there is no file ./who.yaml (looked in {home})"]


def test_a_recipe_of_the_project_goes_before_one_that_came_along(home: Path) -> None:
    recipe(home, "budget: {hours: 3}\n", name="first-look")
    assert load_study("study.yaml").study.budget.hours == 3.0


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_a_recipe_that_comes_along_works_for_a_plain_study_and_names_its_source(file: Path, home: Path) -> None:
    (home / "study.yaml").write_text(
        "name: toy\ntask: {type: text-classification, model: model, data: {path: data.csv}}\n"
        f"objective: {{metric: eval_accuracy, direction: maximize}}\nsweep: {file.stem}\n"
    )
    study = load_study("study.yaml").study
    assert (study.space or study.confirm) and study.sweep == file.stem
    comment = "".join(line for line in file.read_text().splitlines() if line.startswith("#"))
    assert "arXiv:" in comment


def test_the_promised_recipes_come_along() -> None:
    papers = "adamw-playbook bert-grid deberta electra finetune-adamw lora qlora roberta vit"
    assert [file.stem for file in RECIPES] == sorted([*papers.split(), "first-look", "thorough", "confirm-only"])


def test_the_playbooks_betas_are_searched_as_their_distance_from_1(home: Path) -> None:
    (home / "study.yaml").write_text(STUDY + "sweep: adamw-playbook\n")
    study = load_study("study.yaml").study
    drawn = {"one_minus_beta1": 0.25, "one_minus_beta2": 0.5}
    derived = derive(study.space, drawn, known_values(study))
    assert (derived["adam_beta1"], derived["adam_beta2"]) == (0.75, 0.5)


# Writing


def test_a_study_with_a_recipe_is_written_so_that_the_recipe_changes_nothing(home: Path) -> None:
    recipe(
        home,
        "budget: {trials: 7, hours: 2}\nsampler: {type: random}\nretries: {crash: 3}\n",
        study="sampler: {type: tpe}\nretries: {crash: 0}\n",
    )
    study = load_study("study.yaml").study
    (home / "again.yaml").write_text(to_yaml(study))
    assert same(load_study("again.yaml").study, study)


numbers = some.floats(1e-6, 1e6, allow_nan=False)
texts = some.text(some.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=12)
scalars = some.none() | some.booleans() | some.integers(-(10**9), 10**9) | some.floats(allow_nan=False) | texts
values = some.recursive(
    scalars, lambda inner: some.lists(inner, max_size=3) | some.dictionaries(texts, inner, max_size=3), max_leaves=4
)
names = some.from_regex(r"(model\.|task\.|peft\.)?x_[a-z]{1,8}", fullmatch=True)
roles = some.sampled_from(["scientific", "nuisance"])
floats = some.builds(
    lambda low, width, log, role: Float(low=low, high=low + width, log=log, role=role),
    numbers,
    numbers,
    some.booleans(),
    roles,
)
ints = some.builds(
    lambda low, width, step: Int(low=low, high=low + width * step, step=step), *[some.integers(1, 1000)] * 3
)
lists = some.lists(scalars, min_size=1, max_size=4, unique_by=lambda v: str(v)).filter(
    lambda found: len({*found}) == len(found)
)
choices = some.builds(lambda found: Choice(choices=found), lists)
derived = some.builds(lambda name: Expression(expression=f"2 * {name}"), names)
leaves = floats | ints | choices | derived
branches = some.dictionaries(
    some.from_regex(r"[a-z]{1,6}", fullmatch=True), some.dictionaries(names, leaves, max_size=2), min_size=1, max_size=3
)
spaces = some.dictionaries(names, leaves | some.builds(lambda found: Choice(choices=found), branches), max_size=4)
options = some.dictionaries(
    some.from_regex(r"[a-z]{1,6}", fullmatch=True), values.filter(lambda v: v is not None), max_size=2
)
goals = some.sampled_from(["maximize", "minimize"]).flatmap(
    lambda direction: some.sampled_from(
        [
            {"metric": "eval_loss", "direction": direction, "value": "mean(2)"},
            {"metric": "eval_f1", "direction": direction, "nan": "ignore"},
            {
                "metrics": [{"metric": name, "direction": direction} for name in ("eval_f1", "eval_ms")],
                "prune_on": "eval_f1",
            },
        ]
    )
)
studies = some.builds(
    lambda found: StudyData.model_validate(found),
    some.fixed_dictionaries(
        {
            "name": some.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True),
            "task": options.map(lambda found: {"type": "causal-lm", **{f"option_{key}": found[key] for key in found}}),
            "objective": goals,
        },
        optional={
            "question": texts,
            "training": some.dictionaries(names, values, max_size=3),
            "space": spaces,
            "constraints": some.lists(names.map("{} < 1".format), max_size=2),
            "baseline": some.none() | some.dictionaries(names, scalars, max_size=2),
            "enqueue": some.lists(some.dictionaries(names, scalars, max_size=2), max_size=2),
            "budget": some.fixed_dictionaries(
                {}, optional={"trials": some.none() | some.integers(1, 100), "hours": numbers, "target": numbers}
            ),
            "sampler": some.integers(0, 100).map(lambda seed: {"type": "qmc", "seed": seed, "scramble": True}),
            "pruner": options.map(lambda found: {"type": "patient", **{f"x_{key}": found[key] for key in found}}),
            "confirm": some.none() | some.integers(3, 9).map(lambda seeds: {"top": 1, "seeds": seeds, "test": "once"}),
            "retries": some.integers(0, 3).map(lambda times: {"crash": times}),
            "backend": (numbers | some.just("auto")).map(lambda gpus: {"type": "ray", "gpus_per_trial": gpus}),
            "tracking": texts.map(lambda text: {"register": text}),
        },
    ),
)


@given(studies)
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_a_study_that_is_written_and_read_again_is_the_same(tmp_path: Path, study: StudyData) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(to_yaml(study), encoding="utf-8")
    assert same(read_study(file), study)


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_a_shipped_study_that_is_written_and_read_again_is_the_same(file: Path, tmp_path: Path) -> None:
    study = load_study(file).study
    folder = shutil.copytree(ROOT / "studies", tmp_path / "studies") / file.parent.name
    (folder / "again.yaml").write_text(to_yaml(study), encoding="utf-8")
    assert same(load_study(folder / "again.yaml").study, study)


# Reference


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_of_a_built_in_task_has_its_sentence_in_the_reference(kind: str) -> None:
    section = explain().split(f"### {kind}\n")[1].split("\n### ")[0]
    fields = task_class(TaskSpec(type=kind), Path.cwd()).model_fields
    rows = dict(re.findall(r"^- `(\w+)` \([^:]+\): (.+)$", section, re.M))
    assert list(rows) == [field.alias or name for name, field in fields.items()]


def test_known_values_are_defaults_with_the_studys_own_over_them(home: Path) -> None:
    known = known_values(
        load_study("study.yaml", ["task.max_length=32", "training.learning_rate=3e-5", "enqueue=[]"]).study
    )
    wanted = {
        "learning_rate": 3e-5,
        "num_train_epochs": 3.0,
        "per_device_train_batch_size": 8,
        "eval_strategy": "epoch",
        "logging_steps": 10,
        "model.hidden_dropout_prob": 0.1,
        "model.hidden_size": 768,
        "task.max_length": 32,
        "task.label": "label",
        "peft.r": 8,
    }
    assert {name: known[name] for name in wanted} == wanted


REHEARSALS = [
    ("{type: asha}", "training.num_train_epochs=1", "asha could never stop a trial early"),
    ("{type: median}", "budget.trials=5", "median could never stop a trial early"),
    ("{type: hyperband}", "pruner.min_resource=3", "hyperband could never stop a trial early"),
    ("{type: asha, promote: true}", "training.num_train_epochs=1", "no trial could ever pause"),
    ("{type: freeze-thaw}\nsampler: {type: random}", "training.num_train_epochs=1", "no trial could ever pause"),
    (
        "{type: pbt}\nbackend: {type: ray}",
        "training.num_train_epochs=1",
        "pbt could never change what trials train with",
    ),
]


@pytest.mark.parametrize(("pruner", "override", "why"), REHEARSALS)
def test_what_makes_a_pruner_idle_is_a_warning_where_it_comes_from_set_and_an_error_in_the_file(
    home: Path, pruner: str, override: str, why: str
) -> None:
    text = STUDY
    if "pbt" in pruner:
        text = text.replace("enqueue:\n  - {learning_rate: 1e-4}\n", "").replace(
            "  model.hidden_dropout_prob: {low: 0.0, high: 0.3}\n", ""
        )
    (home / "study.yaml").write_text(f"{text}pruner: {pruner}\n")
    for rehearsal in (override, "budget.trials=2"):
        checked = load_study("study.yaml", [rehearsal])
        assert [why in warning.message for warning in checked.warnings] == [True] * (rehearsal == override)
    again = check(
        checked_study := load_study("study.yaml", [override]).study
    )  # as a run does, also by the study's name
    assert why in again.warnings[-1].message and checked_study == again.study
    (home / "study.yaml").write_text(to_yaml(checked_study))
    with pytest.raises(StudyFileError, match=why):
        load_study("study.yaml", ["name=other"])  # --set of anything else does not excuse it


# Cost


@pytest.mark.real
def test_loading_and_checking_is_quick_in_a_fresh_interpreter_and_imports_nothing_heavy(home: Path) -> None:
    heavy = (
        "torch",
        "transformers",
        "datasets",
        "evaluate",
        "ray",
        "mlflow",
        "pandas",
        "sklearn",
        "scipy",
    )
    script = (
        "import sys, time\n"
        "from sweepkit.check.study_file import load_study\n"
        "load_study('study.yaml', ['sweep=finetune-adamw', 'space.peft.r={choices: [4, 8]}']).study\n"
        f"print(time.process_time(), [name for name in {heavy} if name in sys.modules])\n"
    )
    seconds = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        taken, _, imported = done.stdout.strip().partition(" ")
        assert imported == "[]"
        seconds.append(float(taken))
    print(f"load and check, fresh interpreter: {min(seconds):.2f} s")  # noqa: T201  # the measured number is wanted
    assert min(seconds) < COLD_SECONDS
