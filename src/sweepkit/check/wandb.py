"""Converts a W&B sweep file to a study and reports everything that is not the same there.

W&B's ``hyperband`` keeps the best 1/eta at min_iter, min_iter * eta, … in one bracket, asynchronously: that is ``asha``
(asynchronous successive halving) here, not Optuna's hyperband with its several brackets.
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
from sweepkit.check.wandb_metrics import find_metric
from sweepkit.check.wandb_parameters import Converted, Domain, Fixed, Multiples, convert, find_name
from sweepkit.check.yaml import Document, Keys, key_text, read_file
from sweepkit.study.errors import Problem, StudyFileError
from sweepkit.study.objective import Goal, Objective
from sweepkit.study.parameters import Choice, Expression, Float, Int
from sweepkit.study.study import StudyData, TaskSpec

FILL_IN = "FILL-IN"
"""A model or data that nobody named yet."""

__all__ = ["Imported", "import_sweep"]

TRIALS = 50
"""Trials of a sweep without ``run_cap``, which W&B runs until someone stops it."""
SAMPLERS = {"bayes": "gp", "random": "random", "grid": "grid", "custom": "tpe"}
OPTIMIZERS = {"adam": "adamw_torch", "adamw": "adamw_torch"}
IGNORED = {
    "program": "the task is what is trained: see task",
    "project": "runs are recorded in MLflow, under the study's name: see tracking",
    "entity": "there are no accounts",
    "controller": "sweep run is the controller",
    "job": "trials run on this machine or on Ray: see backend",
    "image_uri": "trials run on this machine or on Ray: see backend",
    "scheduler": "Optuna proposes: see sampler",
}
_CONVERTED = {
    *("method", "metric", "metrics", "parameters", "early_terminate", "run_cap"),
    *("name", "description", "apiVersion", "kind"),
}
_BOOLEANS = {"yes": True, "no": False, "on": True, "off": False, "true": True, "false": False, "1": True, "0": False}
"""Texts that stand for booleans in YAML 1.1 or on a command line."""
_SEEDS = ("seed", "data_seed")
_NO_PRUNER = {"type": "none"}


@dataclass
class Imported:
    """The study, and remarks on it, each with its line in the sweep file."""

    study: StudyData
    notes: list[Problem] = field(default_factory=list)
    """What has another name or form here and means the same."""
    warnings: list[Problem] = field(default_factory=list)
    """What has no equivalent, and what was done instead."""

    def text(self, source: str) -> str:
        """Return the study file, headed by what has no equivalent."""
        lost = [f"# - {warning.path}: {warning.message}" for warning in self.warnings]
        head = [f"# Imported from {source}.", *(["# Not the same as there:", *lost] if lost else [])]
        return "\n".join(head) + "\n" + to_yaml(self.study)


def import_sweep(file: Path, *, task: Mapping[str, Any], home: Path) -> Imported:
    """Return a W&B sweep file as a study of ``task``, whose relative paths start from ``home``.

    Raises StudyFileError with everything that W&B would refuse too.
    """
    return _Import(read_file(file, str(file)), str(file), task, home).study()


class _Import:
    def __init__(self, document: Document, label: str, task: Mapping[str, Any], home: Path) -> None:
        self.document, self.label, self.task, self.home = document, label, dict(task), home
        self.given: Mapping[str, Any] = document.data
        self.refused: list[Problem] = list(document.problems)
        self.notes: list[Problem] = []
        self.warnings: list[Problem] = []
        self.training: dict[str, Any] = {}
        self.space: dict[str, Any] = {}
        self.reported: frozenset[str] | None = None
        """The metrics of the task's evaluations; None where only running it can tell."""
        self.names: dict[str, str] = {}
        """Name in the study → name in the sweep."""

    def study(self) -> Imported:
        unknown = Objective(metric="eval_loss", direction="minimize")
        first = StudyData(name="sweep", task=TaskSpec(**self.task), objective=unknown).at(self.home)
        consumers, _ = consumers_of(first)
        if consumers.task is not None:
            self.reported = consumers.task.reported(first.task.options, self.home)
        objective, target = self.objective()
        parameters = self.given.get("parameters")
        if isinstance(parameters, dict) and parameters:
            for keys, given in self.leaves(("parameters",), parameters):
                self.parameter(keys, given, consumers)
        else:
            self.refuse(("parameters",), "is required: name → what to search")
        if not self.space and not self.refused:
            self.warn(
                ("parameters",), "leaves nothing to search: say in space what may vary, or every trial is the same"
            )
        sections = {"sampler": {"type": self.sampler()}, "budget": self.budget(target), "pruner": self.pruner()}
        self.warn_ignored()
        if self.refused:
            raise StudyFileError(sorted(self.refused, key=lambda problem: problem.line or 0))
        named = {"name": self.name(), "question": str(self.given.get("description") or "")}
        whole = {**named, **sections, "task": self.task, "objective": objective, "training": self.training}
        study = StudyData.model_validate({**whole, "space": self.space}).at(self.home)
        return Imported(study, self.notes, self.warnings)

    def remark(self, where: list[Problem], keys: Keys, message: str) -> None:
        origin = self.document.origin(keys)
        where.append(Problem(key_text(keys), message, self.label, origin.line if origin else None))

    def note(self, keys: Keys, message: str) -> None:
        self.remark(self.notes, keys, message)

    def warn(self, keys: Keys, message: str) -> None:
        self.remark(self.warnings, keys, message)

    def refuse(self, keys: Keys, message: str) -> None:
        self.remark(self.refused, keys, message)

    def name(self) -> str:
        written = str(self.given.get("name") or Path(self.label).stem)
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", written).strip("._-")[:100] or "sweep"
        if name != written and "name" in self.given:
            self.note(("name",), f"is {name} here")
        return name

    def leaves(self, keys: Keys, level: Mapping[str, Any]) -> Iterator[tuple[Keys, Mapping[str, Any]]]:
        """Yield every parameter with its keys, nested ones included."""
        for name, given in level.items():
            if not isinstance(given, dict):
                self.refuse((*keys, name), f"expected a distribution, got {given!r}")
            elif isinstance(given.get("parameters"), dict):
                yield from self.leaves((*keys, name, "parameters"), given["parameters"])
            else:
                yield (*keys, name), given

    def parameter(self, keys: Keys, given: Mapping[str, Any], consumers: Consumers) -> None:
        try:
            converted = convert(given)
        except ValueError as error:
            self.refuse(keys, str(error))
            return
        written = ".".join(str(key) for key in keys if key != "parameters")
        name, why = find_name(written, consumers)
        if name is None:
            self.warn(keys, f"{why}; left out")
        elif name in self.names:
            self.warn(keys, f"is {name} here, as {self.names[name]} already is; left out")
        elif name == "task.model" and self.task.get("model", FILL_IN) != FILL_IN:
            self.warn(keys, f"is left out, as --model says {self.task['model']}")
        elif name in _SEEDS and not isinstance(converted.domain, Fixed):
            self.warn(keys, "a seed is not searched; left out, see confirm and seed_per_trial")
        else:
            self.names[name] = written
            if name != written:
                self.note(keys, f"is {name} here")
            self.convert(keys, name, converted, consumers.resolve(name)[0])

    def convert(self, keys: Keys, name: str, converted: Converted, field: Field | None) -> None:
        for text in converted.notes:
            self.note(keys, text)
        for text in converted.warnings:
            self.warn(keys, text)
        domain = self.domain(keys, name, converted.domain, field)
        section, key = (self.task, name.removeprefix("task.")) if name.startswith("task.") else (self.training, name)
        if isinstance(domain, Fixed):
            section[key] = domain.value
            return
        self.task.pop(name.removeprefix("task."), None)
        if isinstance(domain, Multiples):
            self.multiples(keys, name, domain, field.kinds if field is not None else frozenset())
        else:
            self.space[name] = domain

    def domain(self, keys: Keys, name: str, domain: Domain, field: Field | None) -> Domain:
        """Return the domain with the values that the field takes."""
        whole = field is not None and "int" in field.kinds and "float" not in field.kinds
        if isinstance(domain, (Fixed, Choice)):
            written = [domain.value] if isinstance(domain, Fixed) else list(domain.choices)
            values = [self.value(keys, name, each, field) for each in written]
            unique = [each for index, each in enumerate(values) if each not in values[:index]]
            if len(unique) > 1:
                return Choice(choices=unique)
            return Fixed(int(unique[0]) if whole and _is_whole(unique[0]) else unique[0])
        if _is_boolean(field) and isinstance(domain, Int) and (domain.low, domain.high) == (0, 1):
            return Choice(choices=[False, True])
        if whole and isinstance(domain, Float) and domain.step and all(map(_is_whole, (domain.low, domain.step))):
            return Int(low=int(domain.low), high=int(domain.high), step=int(domain.step))
        return domain

    def multiples(self, keys: Keys, name: str, domain: Multiples, kinds: frozenset[str]) -> None:
        """Search the factor, from which the parameter is derived."""
        q: float = domain.q
        if "int" in kinds and "float" not in kinds and _is_whole(q):
            q = int(q)
            if q == 1:
                self.space[name] = domain.count
                return
        elif "float" in kinds and "int" not in kinds:
            q = float(q)
        helper = f"{name.rpartition('.')[2]}_multiple"
        self.space[helper] = domain.count
        self.space[name] = Expression(expression=f"{q!r} * {helper}")
        self.note(keys, f"{q} times {helper}, as Optuna has no steps on a log scale")

    def value(self, keys: Keys, name: str, written: Any, field: Field | None) -> Any:
        """Return a value as its field takes it: optimizers by their names there, YAML 1.1's yes and no as booleans."""
        boolean = _is_boolean(field)
        if boolean and not isinstance(written, bool) and written in (0, 1):
            return bool(written)
        if not isinstance(written, str):
            return written
        if name == "optim" and (known := OPTIMIZERS.get(written.lower(), written.lower())) != written:
            if written.lower() == "adam":
                self.warn(keys, f"{written} is {known} here; its weight decay is decoupled from the gradient")
            else:
                self.note(keys, f"{written} is {known} here")
            return known
        if boolean:
            return _BOOLEANS.get(written.lower(), written)
        return written

    def objective(self) -> tuple[Objective, float | None]:
        """Return the objective and the target value."""
        several = self.given.get("metrics")
        if isinstance(several, list):
            goals = [self.goal(("metrics", index), given) for index, given in enumerate(several)]
            for index, given in enumerate(several):
                if isinstance(given, dict) and "target" in given:
                    self.warn(("metrics", index, "target"), "several metrics have no target; left out")
            return Objective(metrics=goals), None
        if "metric" not in self.given:
            self.warn(("metric",), "is missing; eval_loss is minimized")
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
            self.note(keys, "has no goal, which means minimize")
        for key in given.keys() - {"name", "goal", "target"}:
            self.warn((*keys, key), "has no equivalent; diverged and out-of-memory trials count as the worst so far")
        name, split, question = find_metric(written := given["name"], self.reported)
        if split in ("train", "training", "test"):
            self.warn((*keys, "name"), f"trials are compared by their evaluations: {written} becomes {name}")
        elif name != written:
            self.note((*keys, "name"), f"{written} is {name} here")
        if question:
            self.warn((*keys, "name"), question)
        return Goal(metric=name, direction=direction)

    def sampler(self) -> str:
        method = self.given.get("method")
        if method not in SAMPLERS:
            self.refuse(("method",), f"expected one of {', '.join(SAMPLERS)}, got {method!r}")
        elif method == "bayes" and self.given.get("early_terminate"):
            self.note(("method",), "bayes is tpe here: a Gaussian process learns nothing from trials that are pruned")
            return "tpe"
        elif method == "bayes":
            self.note(("method",), "bayes is a Gaussian process, gp here; tpe is the usual choice for long studies")
        elif method == "custom":
            self.warn(("method",), "custom has no equivalent; Optuna's tpe proposes")
        return SAMPLERS.get(str(method), "tpe")

    def budget(self, target: float | None) -> dict[str, Any]:
        trials = self.given.get("run_cap")
        if trials is not None and (isinstance(trials, bool) or not isinstance(trials, int) or trials < 1):
            self.refuse(("run_cap",), f"expected a whole number above 0, got {trials!r}")
            trials = None
        if trials is None and self.given.get("method") != "grid":
            trials = TRIALS
            self.warn(("run_cap",), f"is missing, and W&B runs until stopped; budget.trials is {TRIALS}")
        limits = {"trials": trials, "target": None if target is None else float(target)}
        return {key: value for key, value in limits.items() if value is not None}

    def pruner(self) -> dict[str, Any]:
        given, here = self.given.get("early_terminate"), "early_terminate"
        if given is None:
            return _NO_PRUNER
        if not isinstance(given, dict) or given.get("type") != "hyperband":
            self.warn((here,), "has no equivalent; no trial is pruned")
            return _NO_PRUNER
        eta, least, most, rounds = given.get("eta", 3), given.get("min_iter"), given.get("max_iter"), given.get("s")
        for key, value in {"eta": eta, "min_iter": least, "max_iter": most, "s": rounds}.items():
            if value is not None and not (_is_number(value) and value > 0):
                self.refuse((here, key), f"expected a number above 0, got {value!r}")
                return _NO_PRUNER
        if eta <= 1 or (least is None and (most is None or rounds is None)):
            self.refuse((here,), "hyperband needs min_iter, or max_iter and s, and an eta above 1")
            return _NO_PRUNER
        factor = max(2, round(eta))
        if factor != eta:
            self.warn((here, "eta"), f"Optuna's reduction_factor is a whole number; {eta} becomes {factor}")
        if most is not None:  # W&B looks at max_iter first, too
            brackets = [int(most / eta**n) for n in range(1, int(rounds or 1) + 1) if most / eta**n >= 1]
            if not brackets:
                self.refuse((here,), f"leaves no iteration to decide at: max_iter={most}, eta={eta}, s={rounds}")
                return _NO_PRUNER
            least = min(brackets)
            decided = ", ".join(map(str, sorted(brackets)))
            self.warn(
                (here, "max_iter"),
                f"W&B decides at iterations {decided} only; asha decides at {least} times powers of {factor}, as long "
                "as a trial lasts",
            )
        if "strict" in given:
            self.warn((here, "strict"), "has no equivalent; asha stops a trial that is not among the best at a rung")
        self.note((here,), "hyperband is asha here; it counts evaluations, not logged steps")
        return {"type": "asha", "min_resource": int(least or 1), "reduction_factor": factor}

    def warn_ignored(self) -> None:
        for key, value in self.given.items():
            if key == "command":
                flags = [word for word in value if str(word).startswith("-")] if isinstance(value, list) else []
                moved = f"; its options {' '.join(map(str, flags))} belong in training" if flags else ""
                self.warn((key,), f"is ignored: sweepkit calls no script{moved}")
            elif key in IGNORED:
                self.warn((key,), f"{value!r} is ignored: {IGNORED[key]}")
            elif key not in _CONVERTED:
                self.warn((key,), "is not a key of a W&B sweep; ignored")


def _is_boolean(field: Field | None) -> bool:
    return field is not None and "bool" in field.kinds and not {"str", "int", "float"} & field.kinds


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return _is_number(value) and value == int(value)
