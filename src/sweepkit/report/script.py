"""Writes a short plain training script for a trial: transformers' own Trainer, without this toolkit.

A script for a built-in kind reads the same rows, makes the same splits and trains with the same values; a task of one's own
is copied and used as it is. Knows no storage; nothing is imported but what writes text.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweepkit.report import pieces
from sweepkit.report.parts import Parts
from sweepkit.study.rule import ValueRule
from sweepkit.study.secrets import scrub
from sweepkit.study.study import StudyData
from sweepkit.study.values import Values
from sweepkit.tasks import Task, load_task
from sweepkit.tasks.arguments import SWEEPKIT_DEFAULTS
from sweepkit.tasks.prepared import digest

KEPT_DEFAULTS = ("eval_strategy", "logging_steps", "logging_nan_inf_filter")
"""What of sweepkit's own TrainingArguments decides how a trial is trained and evaluated."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything a script is written from."""

    study: StudyData
    title: str
    hyperparameters: Mapping[str, Any]
    seed: int
    micro_batch_divisor: int
    model: Path
    """The trial's checkpoint, whose configuration knows the classes and the length of inputs."""

    @property
    def values(self) -> Values:
        """Fixed and searched values by who consumes them."""
        return Values.of(self.study, self.hyperparameters)

    @property
    def training(self) -> dict[str, Any]:
        """TrainingArguments, with the batch as it was split for memory and without the seed."""
        found = {name: SWEEPKIT_DEFAULTS[name] for name in KEPT_DEFAULTS} | dict(self.values.training)
        found.pop("seed", None)
        if self.micro_batch_divisor > 1:
            batch = found.get("per_device_train_batch_size", 8)
            found["per_device_train_batch_size"] = batch // self.micro_batch_divisor
            accumulation = found.get("gradient_accumulation_steps", 1)
            found["gradient_accumulation_steps"] = accumulation * self.micro_batch_divisor
        return found

    @property
    def task(self) -> Task:
        """The task with the trial's options."""
        study = self.study
        return load_task(study.task, study.home, self.values.task, trust_remote_code=study.trust_remote_code)


def write(recipe: Recipe, folder: Path) -> list[Path]:
    """Write ``train.py`` (and what it needs beside it) into the folder and return the files."""
    extra: list[Path] = []
    if recipe.study.task.type is None:
        parts, extra = pieces.own_task(recipe.task, recipe.study, folder)
    else:
        prepared = recipe.study.place.data / digest(recipe.task)
        parts = pieces.of_kind(recipe.study.task.type, recipe.task, recipe.model, prepared)
    parts.needs += ["peft"] if recipe.values.peft else []
    goal = recipe.study.objective.goals[ValueRule(recipe.study.objective).deciding]
    metric, shown = pieces.objective(goal.metric)
    parts.imports += ["import math"] if "math." in shown else []
    constants = {
        "TRAINING": _training(recipe, metric, goal.direction == "maximize"),
        "MODEL_CONFIG": dict(recipe.values.model),
        **({"LORA": dict(recipe.values.peft)} if recipe.values.peft else {}),
        **parts.constants,
    }
    text = "\n".join(
        [
            f'"""{recipe.title}',
            "",
            f"Plain transformers, without sweepkit{parts.but}. Needs: {', '.join(parts.needs)}.",
            "",
            "    python train.py [--seed N] [--output FOLDER]",
            '"""',
            "",
            *_imports([*_IMPORTS, *parts.imports]),
            "",
            *(f"{name} = {_literal(value)}" for name, value in constants.items()),
            "",
            *([parts.code.strip("\n"), "", ""] if parts.code else [""]),
            _main(recipe, parts, metric, shown, goal.metric),
        ]
    )
    ast.parse(text)
    path = folder / "train.py"
    path.write_text(text)
    return [path, *extra]


_IMPORTS = ("import argparse", "import json", "from transformers import set_seed")


def _imports(lines: Sequence[str]) -> list[str]:
    """Return import lines as Python likes them: one for each module, the standard library's first."""
    names: dict[str, set[str]] = {}
    for line in lines:
        module, _, listed = line.removeprefix("from ").partition(" import ")
        names.setdefault(module, set()).update(listed.split(", ") if listed else ())
    blocks: dict[bool, list[str]] = {True: [], False: []}
    for module, found in sorted(names.items(), key=lambda item: (bool(item[1]), item[0])):
        text = f"from {module} import {', '.join(sorted(found))}" if found else module
        if len(text) > 100:
            text = f"from {module} import (\n{''.join(f'    {name},{chr(10)}' for name in sorted(found))})"
        blocks[module.removeprefix("import ").partition(".")[0] in sys.stdlib_module_names].append(text)
    return [*blocks[True], "", *blocks[False]] if blocks[True] else blocks[False]


def _training(recipe: Recipe, metric: str, greater: bool) -> dict[str, Any]:
    found = recipe.training
    if recipe.study.objective.value != "best":
        return {**found, "save_strategy": "no"}
    keep = {"load_best_model_at_end": True, "metric_for_best_model": metric, "greater_is_better": greater}
    steps = {"save_steps": found["eval_steps"]} if found["eval_strategy"] == "steps" and "eval_steps" in found else {}
    if found["eval_strategy"] == "steps" and not steps:
        steps = {"save_steps": found.get("logging_steps", 500)}
    return {**found, "save_strategy": found["eval_strategy"], **steps, "save_total_limit": 1, **keep}


def _main(recipe: Recipe, parts: Parts, metric: str, shown: str, name: str) -> str:
    objective = recipe.study.objective
    goal = objective.goals[ValueRule(objective).deciding]
    last = f"found[-{objective.mean_of}:]"
    value = {
        "best": f"{'max' if goal.direction == 'maximize' else 'min'}(found)",
        "last": "found[-1]",
    }.get(objective.value, f"sum({last}) / len({last})")
    adapter = pieces.adapter(recipe.task) if recipe.values.peft else ""
    return f'''\
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default={recipe.seed})
    parser.add_argument("--output", default="retrained")
    options = parser.parse_args()
{parts.prepare}
    arguments = {parts.arguments}(output_dir=options.output, seed=options.seed, report_to="none", **TRAINING)
    set_seed(arguments.seed)
    model = {parts.model}
{adapter}    trainer = {parts.trainer}(
        model=model,
        args=arguments,
        train_dataset=splits["train"],
        eval_dataset=splits["validation"],
{parts.keywords}
    )
    trainer.train()
    if not any("{metric}" in entry for entry in trainer.state.log_history):
        trainer.evaluate()
    found = [entry["{metric}"] for entry in trainer.state.log_history if "{metric}" in entry]
    trainer.save_model(options.output)
    value = {value}
    print(json.dumps({{"metric": "{name}", "value": {shown}, "seed": options.seed}}))


if __name__ == "__main__":
    main()
'''


def _literal(value: Any) -> str:
    """Return a value as a person would write it in a script, without secrets."""
    if isinstance(value, Mapping) and value:
        lines = "".join(f"    {key!r}: {inner!r},\n" for key, inner in value.items())
        return scrub(f"{{\n{lines}}}")
    return scrub(repr(value))
