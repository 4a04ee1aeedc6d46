"""Rules of names: what consumes each hyperparameter, its default, and which names and values cannot be searched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Any

from sweepkit.check.fields import UNKNOWN, Field
from sweepkit.check.fields.arguments import PEFT_OWNED, SHORTHANDS, what_became_of
from sweepkit.check.fields.installed import Adapter, peft_fields, read_installed
from sweepkit.check.fields.models import configuration, with_values
from sweepkit.check.fields.tasks import TaskFacts, task_facts
from sweepkit.check.rules.values import is_ratio_field, mismatch, range_mismatch
from sweepkit.study import messages
from sweepkit.study.errors import InputError, MissingExtra, Problem, nearest
from sweepkit.study.formulas import ingredients
from sweepkit.study.names import UNSET, field_of, find, is_inside, parts
from sweepkit.study.parameters import Choice, Expression, Float, Int
from sweepkit.study.space import Occurrence, visit
from sweepkit.study.study import StudyData
from sweepkit.tasks.adapters import DEFAULT
from sweepkit.tasks.arguments import SWEEPKIT_DEFAULTS, why_owned
from sweepkit.tasks.task import Task

_SEEDS = frozenset({"seed", "data_seed"})


@dataclass(frozen=True)
class Consumers:
    """The four namespaces of a study; ``None`` stands for one that is not known and takes any name."""

    training: Mapping[str, Field]
    model: Mapping[str, Field] | None
    adapters: Mapping[str, Adapter] | None
    """PEFT's methods."""
    methods: Sequence[str]
    """Those that a trial may train."""
    task: TaskFacts | None
    open: bool = False
    """Whether the Trainer's arguments are not known, so that a bare name may be any."""

    def resolve(self, name: str) -> tuple[Field | None, str]:
        """Return (field, "") for a name that something consumes, else (None, what is wrong with it)."""
        namespace, (leaf, *inside) = parts(name)
        field, complaint = {"": self._bare, "model": self._model, "peft": self._peft, "task": self._task}[namespace](
            leaf
        )
        if field is None and inside and not namespace and self.is_free(leaf):
            complaint = (
                f"names begin with model., peft. or task., or are TrainingArguments{nearest(name, self.names())}"
            )
        if field is None or not inside:
            return field, complaint
        if field.kinds and "dict" not in field.kinds:
            return None, f"{field_of(name)} takes {messages.kinds(field.kinds)}, which has no keys"
        default = find({field_of(name): field.default}, name)
        return Field(name, default=UNKNOWN if default is UNSET else default), ""

    def names(self) -> list[str]:
        """Return every full name that is known, those that sweepkit sets itself left out."""
        found = [name for name in self.training if why_owned(name) is None]
        found += [f"model.{name}" for name in self.model or ()]
        found += [f"peft.{name}" for name in self.peft]
        return found + [f"task.{name}" for name in (self.task.options if self.task else ())]

    def is_free(self, name: str) -> bool:
        """Whether nothing consumes a bare name, nor did in an older transformers: it may name a group."""
        used = name in self.training or bool(what_became_of(name)) or why_owned(name) is not None
        return "." not in name and not used

    def resembles(self, name: str) -> str | None:
        """Return the known name of which a group's name must be a misspelling."""
        found = get_close_matches(name, self.names(), n=1, cutoff=0.85)
        return found[0] if found else None

    def _bare(self, name: str) -> tuple[Field | None, str]:
        if reason := why_owned(name) or (self.task.built_in.decides.get(name) if self.task else None):
            return None, f"is set by sweepkit; {reason}"
        if name in self.training:
            return self.training[name], ""
        if self.open:
            return Field(name), ""
        if became := what_became_of(name):
            return None, became
        names = self.names()
        usual = [SHORTHANDS[name]] if SHORTHANDS.get(name) in names else []
        elsewhere = [*(full for full in names if full.partition(".")[2] == name), *usual]
        hint = f"; did you mean {elsewhere[0]}?" if elsewhere else nearest(name, names)
        return None, f"is not a TrainingArguments field{hint}"

    def _model(self, leaf: str) -> tuple[Field | None, str]:
        accepted = self.task.model_names if self.task else None
        if self.task and accepted is not None and leaf not in accepted:
            listed = f"takes {', '.join(sorted(accepted))} only" if accepted else "takes no configuration"
            return None, f"model_init of {self.task.label} {listed}; give it **config to tune the model's configuration"
        if self.model is None:
            return Field(leaf), ""
        if leaf in self.model:
            return self.model[leaf], ""
        return None, f"the model's configuration has no field {leaf}{_near(leaf, self.model, 'model.')}"

    def _peft(self, leaf: str) -> tuple[Field | None, str]:
        if self.adapters is None:
            return None, str(MissingExtra("LoRA", "peft"))
        if leaf in PEFT_OWNED:
            return None, "is set by sweepkit; it follows from the task and its model, and peft.type chooses the method"
        if leaf in self.peft:
            return self.peft[leaf], ""
        labels = [self.adapters[method].label for method in self.methods if method in self.adapters]
        return None, f"{' or '.join(labels)} has no field {leaf}{_near(leaf, self.peft, 'peft.')}"

    @cached_property
    def peft(self) -> Mapping[str, Field]:
        """The ``peft.*`` names without prefix."""
        return peft_fields(self.adapters, self.methods) if self.adapters else {}

    def _task(self, leaf: str) -> tuple[Field | None, str]:
        if self.task is None or (leaf not in self.task.options and not self.task.closed):
            return Field(leaf), ""
        if leaf in self.task.options:
            return self.task.options[leaf], ""
        return None, f"{self.task.label} has no option {leaf}{_near(leaf, self.task.options, 'task.')}"


def _near(leaf: str, known: Mapping[str, Field], prefix: str) -> str:
    hint = nearest(leaf, known)
    return hint.replace("did you mean ", f"did you mean {prefix}")


def consumers_of(study: StudyData) -> tuple[Consumers, list[Problem]]:
    """Return what consumes a study's names, and what is wrong with its task's kind, file or class."""
    problems: list[Problem] = []
    task: TaskFacts | None = None
    if study.task.type is not None or study.task.path is not None:
        try:
            task = task_facts(study.task, study.home)
        except InputError as error:
            problems.append(Problem("task.type" if study.task.type is not None else "task.path", str(error)))
    models = [configuration(model, study.home) for _, model in models_of(study, task)]
    types = [values["model_type"] for values in models if values is not None]
    found = read_installed(types, *([task.arguments_type, task.folder] if task else ()))
    if found.problem and task:
        problems.append(Problem("task", f"arguments_type of {task.label}: {found.problem}"))
    unknown = bool(found.problem) or (task is None and bool(problems))
    model = _shared(models, found.configurations)
    return Consumers(found.training, model, found.adapters, methods_of(study), task, open=unknown), problems


def methods_of(study: StudyData, found: Occurrence | None = None) -> list[str]:
    """Return the methods of PEFT that a trial may train; with an occurrence, one that has it."""
    if "peft.type" in study.training:
        return [str(study.training["peft.type"])]
    branches = {each.path: each.branch for each in (found.conditions if found else ())}
    methods: list[Any] = []
    always = False
    for each in visit(study.space):
        if each.name != "peft.type" or (found is not None and found.excludes(each)):
            continue
        several = each.parameter.choices if isinstance(each.parameter, Choice) else [each.parameter]
        methods += [branches[each.path]] if each.path in branches else list(several)
        always |= all(condition.path in branches for condition in each.conditions)
    return list(dict.fromkeys([*map(str, methods), *([] if always else [DEFAULT])]))


def _shared(
    models: Sequence[Mapping[str, Any] | None], configurations: Mapping[str, Mapping[str, Field] | None]
) -> Mapping[str, Field] | None:
    """Return the fields that the configurations of all models have, with the first one's defaults; None where unknown."""
    known = []
    for values in models:
        fields = configurations[values["model_type"]] if values is not None else None
        if values is None or fields is None:
            return None
        known.append(with_values(fields, values))
    return {n: field for n, field in known[0].items() if all(n in other for other in known)} if known else None


def models_of(study: StudyData, task: TaskFacts | None) -> list[tuple[str, Any]]:
    """Return (path in the study, model) for every model that ``task.model`` names."""
    searched = [
        (each.path, model)
        for each in visit(study.space)
        if each.name == "task.model"
        for model in (each.parameter.choices if isinstance(each.parameter, Choice) else [each.parameter])
    ]
    if searched:
        return searched
    default = task.options["model"].default if task and "model" in task.options else None
    model = study.task.options.get("model", default)
    return [("task.model", model)] if isinstance(model, (str, Mapping)) else []


def known_values(study: StudyData, consumers: Consumers | None = None) -> dict[str, Any]:
    """Return name → value where the study fixes it or its consumer has a default that can be read without running it.

    Expressions and constraints may name these, and a baseline takes what it leaves out from here.
    """
    if consumers is None:
        consumers, _ = consumers_of(study)
    known: dict[str, Any] = {name: field.default for name, field in consumers.training.items()}
    known |= SWEEPKIT_DEFAULTS
    known |= {f"model.{name}": field.default for name, field in (consumers.model or {}).items()}
    known |= {f"peft.{name}": field.default for name, field in consumers.peft.items()}
    if consumers.task is not None:
        known |= {f"task.{name}": field.default for name, field in consumers.task.options.items()}
    known |= study.fixed
    return {name: value for name, value in known.items() if value is not UNKNOWN}


def convert_numbers(study: StudyData, consumers: Consumers | None = None) -> StudyData:
    """Return the study with its numbers as their fields take them: whole numbers for a float field become floats.

    ``num_train_epochs: {low: 1, high: 5}`` becomes a Float; ``warmup_steps`` from 1 on stays a whole number of steps.
    """
    if consumers is None:
        consumers, _ = consumers_of(study)
    fitted = {
        "space": {name: _fit(name, parameter, consumers) for name, parameter in study.space.items()},
        "training": _fit_values(study.training, consumers),
        "baseline": None if study.baseline is None else _fit_values(study.baseline, consumers),
        "enqueue": [_fit_values(values, consumers) for values in study.enqueue],
    }
    return study.model_copy(update=fitted)


def _fit_values(values: Mapping[str, Any], consumers: Consumers) -> dict[str, Any]:
    return {name: _fit(name, value, consumers) for name, value in values.items()}


def _fit(name: str, value: Any, consumers: Consumers) -> Any:
    field, _ = consumers.resolve(name)
    floats = field is not None and "float" in field.kinds and not is_ratio_field(name, field)
    if field is not None and ("int" in field.kinds or not field.kinds):
        # ``float | int``, as model configurations write it, or a mapping's key: the default's type says which is meant.
        floats = isinstance(field.default, float) and (floats or not field.kinds)
    if isinstance(value, Int) and floats:
        step = float(value.step) if "step" in value.model_fields_set and not value.log else None
        return Float(low=float(value.low), high=float(value.high), step=step, log=value.log, role=value.role)
    if isinstance(value, Choice):
        choices: Any = (
            {branch: _fit_values(children, consumers) for branch, children in value.branches.items()}
            if value.branches
            else [_fit(name, each, consumers) for each in value.choices]
        )
        return value.model_copy(update={"choices": choices})
    if isinstance(value, int) and not isinstance(value, bool) and floats:
        return float(value)
    return value


def check_names(study: StudyData, consumers: Consumers) -> list[Problem]:
    """Return what is wrong with the names and values in ``training`` and ``space``."""
    problems = [*_training(study, consumers)]
    seen: list[Occurrence] = []
    for found in visit(study.space):
        problems += _one(found, study, consumers)
        for other in seen:
            if found.excludes(other):
                continue
            if other.name == found.name:
                message = f"has a value in {other.path} already, in the same configuration; keep one"
                problems.append(Problem(found.path, message))
                break
            if is_inside(found.name, other.name) or is_inside(other.name, found.name):
                inner, outer = sorted((found.name, other.name), key=len, reverse=True)
                message = (
                    f"{inner} lies inside the value of {outer}, which has a value of its own in {other.path}; keep one"
                )
                problems.append(Problem(found.path, message))
                break
        seen.append(found)
    return problems


def _training(study: StudyData, consumers: Consumers) -> Iterator[Problem]:
    for name, value in study.training.items():
        path = f"training.{name}"
        if name.startswith("task."):
            yield Problem(path, f"fixed options of the task belong in task; write {name.removeprefix('task.')} there")
            continue
        field, complaint = consumers.resolve(name)
        if wrong := complaint if field is None else mismatch(name, field, value) or _no_mapping(name, study, consumers):
            yield Problem(path, wrong)


def _no_mapping(name: str, study: StudyData, consumers: Consumers) -> str:
    """Return what is wrong with the value that a name is a key inside of, or nothing."""
    outer = field_of(name)
    if outer == name:
        return ""
    value = study.fixed.get(outer)
    if value is not None and not isinstance(value, Mapping):
        return f"{outer} is fixed to {messages.show(value)}, which has no keys; write it as a mapping"
    namespace, field = parts(name)[0], consumers.resolve(outer)[0]
    has_default = namespace in ("", "peft") and field is not None and isinstance(field.default, dict) and field.default
    own_model = namespace == "model" and consumers.task is not None and consumers.task.built_in is Task
    if value is None and (has_default or own_model):
        return f"needs {outer} in training with all its keys, of which this one then varies: it is passed on as a whole"
    return ""


def _one(found: Occurrence, study: StudyData, consumers: Consumers) -> Iterator[Problem]:
    path, name, parameter = found.path, found.name, found.parameter
    if name in _SEEDS:
        advice = "write seed_per_trial: true to vary it, or confirm: to measure what it does"
        yield Problem(path, f"the seed is the same for every trial and is not searched; {advice}")
        return
    field, complaint = consumers.resolve(name)
    if field is None:
        if isinstance(parameter, Choice) and parameter.branches and consumers.is_free(name):
            yield from _group(found, parameter, consumers)
        elif name not in ingredients(study.space) or not consumers.is_free(name) or isinstance(parameter, Expression):
            yield Problem(path, complaint)
        return
    section = "task" if name.startswith("task.") else "training"
    fixed = {other: value for other, value in study.fixed.items() if is_inside(other, name)}
    if (value := find(study.fixed, name)) is not UNSET or fixed:
        shown = ", ".join(f"{other} {messages.show(each)}" for other, each in fixed.items()) or messages.show(value)
        yield Problem(path, f"is also fixed in {section}, to {shown}; keep one of the two")
    elif wrong := _no_mapping(name, study, consumers):
        yield Problem(path, wrong)
    yield from (Problem(path, wrong) for wrong in _domain(name, field, parameter))


def _domain(name: str, field: Field, parameter: Any) -> Iterator[str]:
    if isinstance(parameter, (Float, Int)):
        if wrong := range_mismatch(name, field, parameter):
            yield wrong
    elif isinstance(parameter, Choice) and parameter.branches and field.kinds and "str" not in field.kinds:
        yield (
            f"expected {messages.kinds(field.kinds)}, but branches name texts; to link values to it, give the choice "
            f"a name of its own and set {name} in each branch"
        )
    elif isinstance(parameter, Choice):
        yield from filter(None, (mismatch(name, field, value) for value in parameter.choices))
    elif not isinstance(parameter, Expression) and (wrong := mismatch(name, field, parameter)):
        yield wrong


def _group(found: Occurrence, parameter: Choice, consumers: Consumers) -> Iterator[Problem]:
    """A choice with branches whose name nothing consumes links values, so each branch must set some."""
    meant = consumers.resembles(found.name)
    if meant is None:
        known = [name for name in consumers.names() if set(parameter.branches) <= set(_texts(consumers, name))]
        meant = known[0] if known else None
    if meant is not None:
        yield Problem(found.path, f"is not a TrainingArguments field; did you mean {meant}?")
        return
    for branch, children in parameter.branches.items():
        if not children:
            yield Problem(
                f"{found.path}.{branch}",
                f"sets nothing; {found.name} is not a hyperparameter but a group of linked values, "
                f"and each branch must set some{nearest(found.name, consumers.names())}",
            )


def _texts(consumers: Consumers, name: str) -> tuple[str, ...]:
    field, _ = consumers.resolve(name)
    return field.choices if field is not None else ()
