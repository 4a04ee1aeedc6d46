"""The JSON schemas: they take every shipped study and recipe, refuse the usual mistakes, and complete and explain each name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

import reference
from sweepkit.check.reference import explain
from sweepkit.check.schema import recipe_schema, schema
from sweepkit.tasks.kinds import KINDS

ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "studies").glob("*/*.yaml"))
RECIPES = sorted((ROOT / "sweeps").glob("*.yaml"))
TEMPLATES = sorted((ROOT / "src/sweepkit/cli").glob("*.yaml"))
STUDY = """\
name: toy
task: {type: text-classification, model: bert-base-uncased, data: {name: imdb}}
objective: {metric: eval_accuracy, direction: maximize}
training: {num_train_epochs: 3, model.hidden_dropout_prob: 0.1, lr_scheduler_kwargs: {num_cycles: 2}}
space: {learning_rate: {low: 1e-6, high: 1e-3, log: true}}
budget: {trials: 40}
"""
MISTAKES = {
    "task.type: text-clasification": "task.type",
    "task.max_lenght: 128": "task",
    "task.max_length: long": "task.max_length",
    "task.metrics: accuracy": "task.metrics",
    "task.data: imdb": "task.data",
    "task: {type: text-classification, model: m}": "task",
    "training.evaluation_strategy: epoch": "training.evaluation_strategy",
    "training.no_cuda: true": "training.no_cuda",
    "training.logging_dir: logs": "training.logging_dir",
    "training.output_dir: out": "training.output_dir",
    "training.lerning_rate: 1e-4": "training",
    "training.task.max_length: 128": "training.task.max_length",
    "training.bf16: 'true'": "training.bf16",
    "training.lr_scheduler_type: cosin": "training.lr_scheduler_type",
    "training.beta: 0.1": "training",
    "space.warmup_ratio: {low: 0.0, high: 0.1}": "space.warmup_ratio",
    "space.learning_rate: {lwo: 1e-6, high: 1e-3}": "space.learning_rate",
    "space.learning_rate: {low: small, high: 1e-3}": "space.learning_rate",
    "space.gradient_accumulation_steps: {low: 0.5, high: 4}": "space.gradient_accumulation_steps",
    "space.bf16: {low: 0, high: 1}": "space.bf16",
    "baseline: {learning_rate: fast}": "baseline",
    "enqueue: [{lr: 1e-4}]": "enqueue.0.lr",
    "objective: {metric: eval_accuracy, direction: max}": "objective.direction",
    "sampler: {type: bayes}": "sampler.type",
    "sampler: {type: tpe, n_startup: 5}": "sampler",
    "sampler: {n_startup_trials: few}": "sampler.n_startup_trials",
    "sampler: {type: random, n_startup_trials: 5}": "sampler",
    "pruner: hyperband": "pruner",
    "pruner: {type: asha, min_resourse: 1}": "pruner",
    "pruner: {type: patient, patience: 2, wrapped_pruner: pbt}": "pruner.wrapped_pruner",
    "pruner: {type: pbt, burn_in: 2}": "pruner",
    "budget.trails: 3": "budget",
    "budget.trials: 0": "budget.trials",
    "backend: {type: slurm}": "backend.type",
    "confirm: {seeds: 2}": "confirm",
}
"""What is written → where an editor marks it."""
RIGHT = [
    "training: {fsdp: true, warmup_steps: 0.1, report_to: [wandb], peft.r: 8, lr_scheduler_kwargs.num_cycles: 2}",
    "space: {shape: {choices: {wide: {model.hidden_size: 8}, deep: {model.num_hidden_layers: 8}}}}",
    "space: {lr_scheduler_kwargs: {num_cycles: {low: 1, high: 3}}, task.max_length: {choices: [64, 128]}}",
    "sampler: {seed: 3, window: 500}",
    "sampler: {path: 'mine.py:Mine', strength: 3}",
    "pruner: {type: patient, patience: 2, wrapped_pruner: {type: median, n_warmup_steps: 1}}",
    "pruner: {type: asha, min_resource: auto, promote: true}",
    "pruner: {type: pbt, perturbation_factors: [1.3, 0.7], fixed: [learning_rate]}",
    "search: auto",
    "task: {path: 'task.py:Mine', anything: 3}",
    "task: {type: dpo, model: m, data: {path: a.csv}}\ntraining: {beta: 0.2}",
    "task: {type: text-classification, data: {name: d}}\nspace: {task.model: {choices: [a/b, c/d]}}",
    "task: {path: 'task.py:Mine'}\ntraining: {of_my_own_arguments: 3}",
]


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return schema()


@pytest.fixture(scope="module")
def validator(whole: dict[str, Any]) -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(whole)
    return jsonschema.Draft202012Validator(whole)


def read(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def changed(change: str) -> Any:
    """Return the study with a change: ``key:`` replaces a section, ``section.name:`` a name in it."""
    study, (path, _, value) = read(STUDY), change.partition(": ")
    section, dot, name = path.partition(".")
    if not dot:
        return {**study, **read(change)}
    study[section] = {**study[section], name: read(value)}
    return study


def marked(validator: jsonschema.Draft202012Validator, document: Any) -> set[str]:
    return {".".join(map(str, error.absolute_path)) for error in validator.iter_errors(document)}


def test_the_schema_takes_a_study(validator: jsonschema.Draft202012Validator) -> None:
    assert marked(validator, read(STUDY)) == set()


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_marked_where_it_is(validator: jsonschema.Draft202012Validator, mistake: str) -> None:
    assert marked(validator, changed(mistake)) == {MISTAKES[mistake]}


@pytest.mark.parametrize("change", RIGHT)
def test_what_the_check_takes_is_not_marked(validator: jsonschema.Draft202012Validator, change: str) -> None:
    assert marked(validator, {**read(STUDY), **read(change)}) == set()


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_a_shipped_study_keeps_to_the_schema_that_it_names(
    validator: jsonschema.Draft202012Validator, file: Path
) -> None:
    assert file.read_text().startswith("# yaml-language-server: $schema=../study.schema.json\n")
    assert marked(validator, read(file.read_text())) == set()


def test_a_recipe_is_no_study_and_has_a_schema_of_its_own() -> None:
    found = recipe_schema()
    jsonschema.Draft202012Validator.check_schema(found)
    recipes = jsonschema.Draft202012Validator(found)
    for file in RECIPES:
        assert file.read_text().startswith("# yaml-language-server: $schema=recipe.schema.json\n")
        assert marked(recipes, read(file.read_text())) == set(), file
    assert marked(recipes, {"name": "x"}) == marked(recipes, {"task": {"type": "dpo"}}) == {""}
    assert marked(recipes, {"pruner": {"type": "asha", "eta": 3}}) == {"pruner"}


def test_templates_name_the_schema_that_is_written_beside_them() -> None:
    assert [file.read_text().splitlines()[0] for file in TEMPLATES] == ["# yaml-language-server: $$schema=$schema"] * 2


@pytest.mark.parametrize("file", ["studies/study.schema.json", "sweeps/recipe.schema.json"])
def test_the_written_schemas_are_those_of_the_code(file: str) -> None:
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    for name in ("transformers", "optuna", "peft", "trl", "sentence-transformers"):
        if version(name) != pinned[name]:
            pytest.skip(f"the schemas are those of {name} {pinned[name]}; pip install -c constraints.txt")
    assert json.loads((ROOT / file).read_text()) == reference.schemas()[ROOT / file], "make reference writes it again"


def completed(root: dict[str, Any], document: Any, path: str) -> dict[str, Any]:
    """Return what an editor offers below a path of a document: name → its schema."""
    nodes, value = [root], document
    for key in path.split("."):
        nodes = [each for node in nodes for part in parts(root, node, value) for each in below(part, key)]
        value = value.get(key, {}) if isinstance(value, dict) else value[int(key)]
    found = [part.get("properties", {}) for node in nodes for part in parts(root, node, value)]
    return {
        name: each
        for properties in found
        for name, each in properties.items()
        if each is not True and "not" not in each
    }


def below(part: dict[str, Any], key: str) -> list[Any]:
    named = [part["properties"][key]] if key in part.get("properties", {}) else []
    return [*named, part["items"]] if "items" in part else named


def parts(root: dict[str, Any], node: Any, value: Any) -> Iterator[dict[str, Any]]:
    """Yield a schema and those that it stands for, as far as they hold for a value."""
    if not isinstance(node, dict):
        return
    yield node
    inner = [*node.get("allOf", []), *node.get("anyOf", [])]
    if "$ref" in node:
        inner.append(root["$defs"][node["$ref"].rpartition("/")[2]])
    if "if" in node and jsonschema.Draft202012Validator({**node["if"], "$defs": root["$defs"]}).is_valid(value):
        inner.append(node["then"])
    for each in inner:
        yield from parts(root, each, value)


def test_training_arguments_are_completed_with_their_own_help_and_what_is_the_default_here(
    whole: dict[str, Any],
) -> None:
    for path in ("training", "baseline", "enqueue.0", "space"):
        found = completed(whole, {**read(STUDY), "enqueue": [{}], "baseline": {}}, path)
        assert found["weight_decay"]["description"].startswith("Weight decay coefficient applied by the optimizer"), (
            path
        )
        assert found["peft.lora_alpha"]["description"], path
        assert found["task.max_length"]["description"].startswith("Maximum input length") or path == "training", path
    found = completed(whole, read(STUDY), "training")
    assert found["eval_strategy"]["default"] == "epoch"
    assert found["learning_rate"]["default"] == 5e-5
    assert (found["evaluation_strategy"]["deprecated"], found["evaluation_strategy"]["description"]) == (
        True,
        "transformers calls it eval_strategy",
    )
    undescribed = [name for name, each in found.items() if not each.get("description") and name != "peft.type"]
    assert undescribed == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_kinds_options_are_completed(whole: dict[str, Any], kind: str) -> None:
    found = completed(whole, {"task": {"type": kind}}, "task")
    section = explain().split(f"### {kind}\n")[1].split("\n### ")[0]
    assert {name for name in found if f"- `{name}`" not in section} == {"type", "path", "pickle"}
    assert all(each["description"] for each in found.values())
    assert "format" in completed(whole, {"task": {"type": kind}}, "task.data")


def test_the_arguments_of_a_kinds_own_trainer_are_completed(whole: dict[str, Any]) -> None:
    assert completed(whole, {"task": {"type": "dpo"}}, "training")["beta"]["description"]
    assert "beta" in completed(whole, {"task": {"type": "dpo"}}, "space")
    assert "beta" not in completed(whole, {"task": {"type": "seq2seq"}}, "training")
    assert "predict_with_generate" in completed(whole, {"task": {"type": "seq2seq"}}, "training")


def test_options_of_samplers_and_pruners_are_completed_by_type(whole: dict[str, Any]) -> None:
    tpe = completed(whole, {"sampler": {}}, "sampler")
    assert (tpe["multivariate"]["default"], tpe["window"]["default"]) == (True, 1000)
    assert tpe["n_startup_trials"]["description"].startswith("The random sampling is used instead of the TPE algorithm")
    assert "window" not in completed(whole, {"sampler": {"type": "gp"}}, "sampler")
    asha = completed(whole, {"pruner": {"type": "asha"}}, "pruner")
    assert asha["min_resource"]["description"].startswith("Evaluations before the first decision")
    assert set(asha) == {
        *("type", "path", "min_resource", "reduction_factor", "min_early_stopping_rate", "bootstrap_count", "promote"),
    }
    assert "fixed" in completed(whole, {"pruner": {"type": "pbt"}}, "pruner")


def test_every_key_has_its_sentence_in_the_schema_and_in_the_reference(whole: dict[str, Any]) -> None:
    text, sections = explain(), {"": whole, **whole["$defs"]}
    for name, section in sections.items():
        if name not in ("Values", "Outdated") and not name.endswith("-values"):
            for key, entry in section.get("properties", {}).items():
                assert entry is True or entry.get("description"), f"{name}.{key}"
                assert f"`{key}`" in text
