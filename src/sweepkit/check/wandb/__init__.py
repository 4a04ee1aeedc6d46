"""A W&B sweep file becomes a study file; everything that is not the same there is told. Needs no W&B, runs nothing.

W&B's ``hyperband`` keeps the best 1/eta at min_iter, min_iter * eta, … in one bracket and waits for nobody: that is our
``asha`` (asynchronous successive halving), not Optuna's hyperband of several brackets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sweepkit.check import Consumers, consumers_of
from sweepkit.check.fields import Field
from sweepkit.check.study_file import to_yaml
from sweepkit.check.wandb.distributions import Fixed, Multiples, drawn
from sweepkit.check.wandb.names import our_name, our_optimizer
from sweepkit.check.yaml import Document, Keys, dotted, read_file
from sweepkit.study.errors import Problem, StudyFileError
from sweepkit.study.objective import Goal, Objective
from sweepkit.study.parameters import Choice, Expression, Float, Int
from sweepkit.study.study import StudyData, TaskSpec

__all__ = ["Imported", "import_sweep"]

TRIALS = 50
"""Trials of a sweep without ``run_cap``: W&B goes on until someone stops it."""
SAMPLERS = {"bayes": "gp", "random": "random", "grid": "grid", "custom": "tpe"}
IGNORED = {
    "program": "the task is what is trained: see task",
    "project": "runs are recorded in MLflow, under the study's name: see tracking",
    "entity": "there are no accounts",
    "controller": "sweep run is the controller",
    "job": "trials run on this machine or on Ray: see backend",
    "image_uri": "trials run on this machine or on Ray: see backend",
    "scheduler": "Optuna proposes: see sampler",
}
_PLAIN = {"method", "metric", "metrics", "parameters", "early_terminate", "run_cap", "name", "description"}
_YAML_1_1 = {"yes": True, "no": False, "on": True, "off": False}
_SEEDS = ("seed", "data_seed")


@dataclass
class Imported:
    """The study, and what there is to say about it, each with its line in the sweep file."""

    study: StudyData
    notes: list[Problem] = field(default_factory=list)
    """What bears another name or form here and means the same."""
    warnings: list[Problem] = field(default_factory=list)
    """What has no equal, and what was done instead."""

    def text(self, source: str) -> str:
        """Return the study file; what has no equal stands on top of it."""
        said = [f"# - {warning.path}: {warning.message}" for warning in self.warnings]
        head = [f"# Imported from {source}.", *(["# Not as it was there:", *said] if said else [])]
        return "\n".join(head) + "\n" + to_yaml(self.study)


def import_sweep(file: Path, *, task: Mapping[str, Any], home: Path) -> Imported:
    """Return what a W&B sweep file asks for, as a study of ``task`` whose relative paths start from ``home``.

    Raises StudyFileError with everything that W&B would refuse too.
    """
    return _Reading(read_file(file, str(file)), str(file), task, home).study()


class _Reading:
    def __init__(self, document: Document, label: str, task: Mapping[str, Any], home: Path) -> None:
        self.document, self.label, self.task, self.home = document, label, dict(task), home
        self.given: Mapping[str, Any] = document.data
        self.wrong: list[Problem] = list(document.problems)
        self.notes: list[Problem] = []
        self.warnings: list[Problem] = []
        self.training: dict[str, Any] = {}
        self.space: dict[str, Any] = {}
        self.taken: dict[str, str] = {}

    def study(self) -> Imported:
        objective, target = self.objective()
        first = StudyData(name="sweep", task=TaskSpec(**self.task), objective=objective).at(self.home)
        consumers, _ = consumers_of(first)
        parameters = self.given.get("parameters")
        if isinstance(parameters, dict) and parameters:
            for keys, given in self.leaves(("parameters",), parameters):
                self.parameter(keys, given, consumers)
        else:
            self.refuse(("parameters",), "is needed: name → what to search")
        sections = {"sampler": {"type": self.sampler()}, "budget": self.budget(target), "pruner": self.pruner()}
        self.rest()
        if self.wrong:
            raise StudyFileError(sorted(self.wrong, key=lambda problem: problem.line or 0))
        named = {"name": self.name(), "question": str(self.given.get("description") or "")}
        whole = {**named, **sections, "task": self.task, "objective": objective, "training": self.training}
        made = StudyData.model_validate({**whole, "space": self.space}).at(self.home)
        return Imported(made, self.notes, self.warnings)

    def problem(self, keys: Keys, message: str) -> Problem:
        origin = self.document.origin(keys)
        return Problem(dotted(keys), message, self.label, origin.line if origin else None)

    def note(self, keys: Keys, message: str) -> None:
        self.notes.append(self.problem(keys, message))

    def warn(self, keys: Keys, message: str) -> None:
        self.warnings.append(self.problem(keys, message))

    def refuse(self, keys: Keys, message: str) -> None:
        self.wrong.append(self.problem(keys, message))

    def name(self) -> str:
        wanted = str(self.given.get("name") or Path(self.label).stem)
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", wanted).strip("._-")[:100] or "sweep"
        if name != wanted and "name" in self.given:
            self.note(("name",), f"is {name} here")
        return name

    def leaves(self, keys: Keys, level: Mapping[str, Any]) -> Iterator[tuple[Keys, Mapping[str, Any]]]:
        """Every parameter with its keys, those inside others too."""
        for name, given in level.items():
            if not isinstance(given, dict):
                self.refuse((*keys, name), f"expected a distribution, got {given!r}")
            elif isinstance(given.get("parameters"), dict):
                yield from self.leaves((*keys, name, "parameters"), given["parameters"])
            else:
                yield (*keys, name), given

    def parameter(self, keys: Keys, given: Mapping[str, Any], consumers: Consumers) -> None:
        try:
            found = drawn(given)
        except ValueError as error:
            self.refuse(keys, str(error))
            return
        written = ".".join(str(key) for key in keys if key != "parameters")
        name, why = our_name(written, consumers)
        if name is None:
            self.warn(keys, f"{why}; left out")
            return
        if name in self.taken:
            self.warn(keys, f"is {name} here, which {self.taken[name]} is already; left out")
            return
        if name in _SEEDS and not isinstance(found.domain, Fixed):
            self.warn(keys, "a seed is not searched; left out, see confirm and seed_per_trial")
            return
        self.taken[name] = written
        if name != written:
            self.note(keys, f"is {name} here")
        for text in found.notes:
            self.note(keys, text)
        for text in found.warnings:
            self.warn(keys, text)
        taker, _ = consumers.resolve(name)
        domain = found.domain
        if isinstance(domain, (Fixed, Choice)):
            before = [domain.value] if isinstance(domain, Fixed) else list(domain.choices)
            values = [self.value(keys, name, each, taker) for each in before]
            after = [each for index, each in enumerate(values) if each not in values[:index]]
            domain = Fixed(after[0]) if len(after) == 1 else Choice(choices=after)
        self.put(keys, name, domain, taker)

    def value(self, keys: Keys, name: str, written: Any, taker: Field | None) -> Any:
        """One value as its taker knows it: everyday names of optimizers, and what YAML 1.1 takes for true and false."""
        if name == "optim" and (new := our_optimizer(written)) != written:
            lost = "; its weight decay is decoupled from the gradient"
            adam = str(written).lower() == "adam"
            (self.warn if adam else self.note)(keys, f"{written} is {new} here{lost if adam else ''}")
            return new
        if taker is not None and "bool" in taker.kinds and "str" not in taker.kinds and isinstance(written, str):
            return _YAML_1_1.get(written.lower(), written)
        return written

    def put(self, keys: Keys, name: str, domain: Any, taker: Field | None) -> None:
        kinds = taker.kinds if taker is not None else frozenset()
        whole = "int" in kinds and "float" not in kinds
        option = name.removeprefix("task.") if name.startswith("task.") else ""
        if isinstance(domain, Fixed):
            value = int(domain.value) if whole and _is_whole(domain.value) else domain.value
            (self.task if option else self.training)[option or name] = value
            return
        self.task.pop(option, None)
        if isinstance(domain, Multiples):
            if domain.q == 1 and whole:
                self.space[name] = domain.count
                return
            helper = f"{name.rpartition('.')[2]}_multiple"
            floats = "float" in kinds and "int" not in kinds
            q = float(domain.q) if floats else int(domain.q) if whole and _is_whole(domain.q) else domain.q
            self.space[helper] = domain.count
            self.space[name] = Expression(expression=f"{q!r} * {helper}")
            self.note(keys, f"{q} times {helper}, for there are no steps on a log scale")
            return
        if whole and isinstance(domain, Float) and domain.step and all(map(_is_whole, (domain.low, domain.step))):
            domain = Int(low=int(domain.low), high=int(domain.high), step=int(domain.step))
        self.space[name] = domain

    def objective(self) -> tuple[Objective, float | None]:
        several = self.given.get("metrics")
        if isinstance(several, list):
            goals = [self.goal(("metrics", index), given) for index, given in enumerate(several)]
            for index, given in enumerate(several):
                if isinstance(given, dict) and "target" in given:
                    self.warn(("metrics", index, "target"), "several metrics have no target; left out")
            return Objective(metrics=goals), None
        if "metric" not in self.given:
            self.warn(("metric",), "is not there; eval_loss is minimized")
        metric = self.given.get("metric", {"name": "eval_loss", "goal": "minimize"})
        goal = self.goal(("metric",), metric)
        target = metric.get("target") if isinstance(metric, dict) else None
        return Objective(metric=goal.metric, direction=goal.direction), target

    def goal(self, keys: Keys, given: Any) -> Goal:
        if not isinstance(given, dict) or not isinstance(given.get("name"), str):
            self.refuse(keys, f"expected a name and a goal, got {given!r}")
            return Goal(metric="eval_loss", direction="minimize")
        direction = given.get("goal", "minimize")
        if direction not in ("minimize", "maximize"):
            self.refuse((*keys, "goal"), f"expected minimize or maximize, got {direction!r}")
            return Goal(metric="eval_loss", direction="minimize")
        if "goal" not in given:
            self.note(keys, "no goal is said, which means minimize")
        for key in given.keys() - {"name", "goal", "target"}:
            self.warn((*keys, key), "has no equal; diverged and out-of-memory trials count as the worst so far")
        written = given["name"]
        split = re.fullmatch(r"(eval|evaluation|val|valid|validation|dev|test|train)[/_.-](.+)", written)
        part, metric = split.groups() if split else ("", written)
        name = f"eval_{re.sub(r'[/.-]', '_', metric)}"
        if part in ("train", "test"):
            self.warn((*keys, "name"), f"{written} is not what trials are compared by; {name} is, of the evaluations")
        elif name != written:
            self.note((*keys, "name"), f"{written} is {name} here")
        return Goal(metric=name, direction=direction)

    def sampler(self) -> str:
        method = self.given.get("method")
        if method not in SAMPLERS:
            self.refuse(("method",), f"expected one of {', '.join(SAMPLERS)}, got {method!r}")
        elif method == "bayes":
            self.note(("method",), "bayes is a Gaussian process, gp here; tpe is the usual one for long studies")
        elif method == "custom":
            self.warn(("method",), "custom has no equal; Optuna's tpe proposes")
        return SAMPLERS.get(str(method), "tpe")

    def budget(self, target: float | None) -> dict[str, Any]:
        trials = self.given.get("run_cap")
        if trials is not None and (isinstance(trials, bool) or not isinstance(trials, int) or trials < 1):
            self.refuse(("run_cap",), f"expected a whole number above 0, got {trials!r}")
            trials = None
        if trials is None and self.given.get("method") != "grid":
            trials = TRIALS
            self.warn(("run_cap",), f"is not there, and W&B goes on until stopped; budget.trials is {TRIALS}")
        found = {"trials": trials, "target": None if target is None else float(target)}
        return {key: value for key, value in found.items() if value is not None}

    def pruner(self) -> dict[str, Any]:
        given, here = self.given.get("early_terminate"), "early_terminate"
        if given is None:
            return {"type": "none"}
        if not isinstance(given, dict) or given.get("type") != "hyperband":
            self.warn((here,), "has no equal; no trial is pruned")
            return {"type": "none"}
        eta, least, most, rounds = given.get("eta", 3), given.get("min_iter"), given.get("max_iter"), given.get("s")
        for key, value in {"eta": eta, "min_iter": least, "max_iter": most, "s": rounds}.items():
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0):
                self.refuse((here, key), f"expected a number above 0, got {value!r}")
                return {"type": "none"}
        if eta <= 1 or (least is None and (most is None or rounds is None)):
            self.refuse((here,), "hyperband needs min_iter, or max_iter and s, and an eta above 1")
            return {"type": "none"}
        factor = max(2, round(eta))
        if factor != eta:
            self.warn((here, "eta"), f"Optuna's reduction_factor is a whole number; {eta} is {factor}")
        if most is not None:  # W&B looks at max_iter first, too
            bands = [int(most / eta**n) for n in range(1, int(rounds or 1) + 1) if most / eta**n >= 1]
            if not bands:
                self.refuse((here,), f"leaves no iteration to decide at: max_iter={most}, eta={eta}, s={rounds}")
                return {"type": "none"}
            least = min(bands)
            spoken = ", ".join(map(str, sorted(bands)))
            ours = f"asha decides at {least} times powers of {factor}, as long as a trial lasts"
            self.warn((here, "max_iter"), f"decided at {spoken} and not after; {ours}")
        if "strict" in given:
            self.warn((here, "strict"), "has no equal; asha stops who is not among the best at a decision")
        self.note((here,), "hyperband is asha here; it counts evaluations, not logged steps")
        return {"type": "asha", "min_resource": int(least or 1), "reduction_factor": factor}

    def rest(self) -> None:
        for key, value in self.given.items():
            if key == "command":
                flags = [word for word in value if str(word).startswith("-")] if isinstance(value, list) else []
                said = f"; what it passes, {' '.join(map(str, flags))}, belongs in training" if flags else ""
                self.warn((key,), f"is ignored: sweepkit calls no script{said}")
            elif key in IGNORED:
                self.warn((key,), f"{value!r} is ignored: {IGNORED[key]}")
            elif key not in _PLAIN and key not in ("apiVersion", "kind"):
                self.warn((key,), "is no key of a W&B sweep; ignored")


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == int(value)
