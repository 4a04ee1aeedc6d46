"""Loads study files, with every problem at its line, and writes them: recipes merged in, ``--set`` applied on top."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from io import StringIO
from pathlib import Path
from shlex import quote
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML

from sweepkit.check import Checked, convert_numbers, examine, hints
from sweepkit.check.accelerate import with_accelerate
from sweepkit.check.merging import as_mapping, with_overrides, with_recipe
from sweepkit.check.yaml import Document, Keys, Origin, key_text, read_file
from sweepkit.study import messages
from sweepkit.study.errors import Problem, StudyFileError
from sweepkit.study.parameters import Choice, Expression, Float, Int
from sweepkit.study.study import StudyData

_PARAMETERS: Mapping[str, type[BaseModel]] = {"float": Float, "int": Int, "choice": Choice, "expression": Expression}
_ATTEMPTS = 5
_MOST, _LENGTH = 50, 600
"""Problems that are reported at once, and characters of each."""


def load_study(path: Path | str, overrides: Iterable[str] = ()) -> Checked:
    """Return the checked study in a file.

    ``overrides`` are ``a.b=value`` texts as ``--set`` takes them; values are YAML. That they make the pruner idle is a warning.
    Raises StudyFileError with every problem, in the file's order.
    """
    overrides = list(overrides)
    file = _StudyFile(path, overrides)
    if file.study is None:
        raise file.error()
    found, checked = examine(file.study)
    plain = _StudyFile(path, ()).study if checked.idle and overrides else None
    if plain is None or examine(plain)[1].idle:
        checked = replace(checked, idle=())  # the file's own fault
    checked = replace(checked, warnings=(*checked.warnings, *checked.idle))
    found = [problem for problem in found if problem not in checked.idle]
    reported = {problem.path for problem in file.problems}
    file.problems += [each for each in found if not file.hides(each.path) and each.path not in reported]
    if file.problems:
        raise file.error()
    return replace(checked, warnings=(*file.idle, *map(file.locate, checked.warnings)))


def read_study(path: Path | str, overrides: Iterable[str] = ()) -> StudyData:
    """Return the study in a file, checked against its data classes only and not against the installed libraries.

    Raises StudyFileError with what the data classes refuse, in the file's order.
    """
    file = _StudyFile(path, overrides)
    if file.problems or file.study is None:
        raise file.error()
    return convert_numbers(file.study)


def merge_recipe(keys: Mapping[str, Any], home: Path) -> tuple[dict[str, Any], list[Problem]]:
    """Return the keys of a study made in Python with those of its recipe and its accelerate file, and what has no effect.

    Raises StudyFileError for what is wrong with these files.
    """
    document, idle = _merged(Document(dict(keys), {(): Origin("Study(…)")}), home, ())
    if document.problems:
        raise StudyFileError(document.problems)
    return document.data, idle


def _merged(document: Document, home: Path, overrides: Iterable[str]) -> tuple[Document, list[Problem]]:
    return with_accelerate(with_overrides(with_recipe(document, home, overrides), overrides), home)


class _StudyFile:
    """A study file as far as it can be read: what is broken is left out, so that the rest can be checked too."""

    def __init__(self, path: Path | str, overrides: Iterable[str]) -> None:
        file, overrides = Path(path), list(overrides)
        home = file.resolve().parent
        self.label = str(path)
        document = read_file(file, str(path))
        if {"method", "parameters"} <= document.data.keys() and not {"task", "space"} & document.data.keys():
            message = f"is a W&B sweep file; convert it with: sweep import {quote(str(path))}"
            raise StudyFileError([Problem("", message, self.label, 1)])
        self.document, self.idle = _merged(document, home, overrides)
        self.problems: list[Problem] = list(self.document.problems)
        self._hidden = {problem.path for problem in self.document.problems if problem.path}
        data = self.document.data
        self._data = {key: dict(value) if isinstance(value, dict) else value for key, value in data.items()}
        study = self._validate()
        self._hide_uses()
        self.study = study.at(home) if study is not None else None

    def hides(self, path: str) -> bool:
        """Whether a problem at this path may come from what was left out."""
        return _overlap(path, self._hidden)

    def error(self) -> StudyFileError:
        """Return the error with each problem once: the study file's own by line, then those of recipes and options."""
        located = dict.fromkeys(self.locate(problem) for problem in self.problems)
        order = sorted(located, key=lambda p: (p.file != self.label, p.line is None, p.file or "", p.line or 0, p.path))
        rest = [Problem("", f"and {len(order) - _MOST} more problems", self.label)] if len(order) > _MOST else []
        return StudyFileError([*map(_shortened, order[:_MOST]), *rest])

    def locate(self, problem: Problem) -> Problem:
        """Return the problem with the file and line of its key, or of the nearest key above that is written down."""
        if problem.file is not None:
            return problem
        origin = self.document.cause(self.document.locate(problem.path))
        return Problem(problem.path, problem.message, origin.file, origin.line) if origin else problem

    def _validate(self) -> StudyData | None:
        unreadable = set(self._hidden)
        self._refuse_constants()
        for _ in range(_ATTEMPTS):
            try:
                return StudyData.model_validate(self._data)
            except ValidationError as error:
                before, broken = self._hidden - unreadable, _broken(error, self._data)
                unknown = {keys: errors[0] for keys, (errors, *_) in broken.items() if _is(errors, "extra_forbidden")}
                guessed = {hints.elsewhere(keys, each["input"]) for keys, each in unknown.items()} - {""}
                self._hidden |= {path for path in guessed if path.partition(".")[0] not in self._data}
                for keys, (errors, model, whole) in broken.items():
                    path = key_text(keys)
                    misspelled = _is(errors, "missing") and any(_within(each, path) for each in guessed)
                    if path not in unreadable and not _overlap(path, before) and not misspelled:
                        hint = hints.suggest(keys, errors[0])
                        self.problems.append(Problem(path, messages.sentence(errors, model, hint)))
                    # The options of an unknown sampler or pruner cannot be judged.
                    self._hidden.add(key_text(whole[:-1] if whole[-1:] == ("type",) else whole))
                    _leave_out(self._data, whole)
                self._stand_in()
        return None

    def _refuse_constants(self) -> None:
        """At the top of the space, each name must say how it varies."""
        space = as_mapping(self._data.get("space"))
        for name, entry in list(space.items()):
            if isinstance(entry, dict) and set(hints.WAYS) & set(entry):
                continue
            message = f"needs low and high, choices or expression, got {messages.show(entry)}{hints.instead(entry)}"
            self.problems.append(Problem(f"space.{name}", message))
            self._hidden.add(f"space.{name}")
            del space[name]

    def _stand_in(self) -> None:
        """Put something harmless where a study cannot do without."""
        if "name" not in self._data:
            self._data["name"] = "study"
            self._hidden.add("name")
        task = as_mapping(self._data.get("task"))
        if sum(task.get(way) is not None for way in ("type", "path", "pickle")) != 1:
            self._data["task"] = {"type": "unknown"}
            self._hidden.add("task")
        objective = as_mapping(self._data.get("objective"))
        if "metrics" not in objective and len({"metric", "direction"} & set(objective)) < 2:
            metric = objective.get("metric")
            if not isinstance(metric, str):
                metric = "eval_loss"
                self._hidden.add("objective.metric")
            self._data["objective"] = {**objective, "metric": metric, "direction": "minimize"}
            self._hidden.add("objective.direction")

    def _hide_uses(self) -> None:
        """What uses a parameter that was left out cannot be judged."""
        enqueue, constraints = self._data.get("enqueue"), self._data.get("constraints")
        for name in [path.removeprefix("space.") for path in self._hidden if path.startswith("space.")]:
            self._hidden.add(f"baseline.{name}")
            self._hidden |= {f"enqueue[{at}].{name}" for at in range(len(enqueue) if isinstance(enqueue, list) else 0)}
            for index, text in enumerate(constraints if isinstance(constraints, list) else ()):
                if re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.])", str(text)):
                    self._hidden.add(f"constraints[{index}]")


def _shortened(problem: Problem) -> Problem:
    if len(str(problem)) <= _LENGTH:
        return problem
    path = problem.path if len(problem.path) <= 100 else f"{problem.path[:99]}…"
    cut = replace(problem, path=path, message="")
    room = max(100, _LENGTH - len(str(cut)) - 1)
    message = problem.message if len(problem.message) <= room else f"{problem.message[: room - 1]}…"
    return replace(cut, message=message)


def _is(errors: list[ErrorDetails], kind: str) -> bool:
    return errors[0]["type"] == kind


def _overlap(path: str, others: Iterable[str]) -> bool:
    """Whether a path lies within one of the others, or one of them within it."""
    return any(_within(path, other) or _within(other, path) for other in others)


def _within(path: str, outer: str) -> bool:
    return path == outer or path.startswith((f"{outer}.", f"{outer}["))


_Broken = tuple[list[ErrorDetails], type[BaseModel] | None, Keys]
"""The errors at one place, the class of its section, and the keys of what to leave out."""


def _broken(error: ValidationError, data: Any) -> dict[Keys, _Broken]:
    found: dict[Keys, _Broken] = {}
    for each in error.errors(include_url=False):
        if (place := _place(each, data)) is not None:
            keys, model, whole = place
            found.setdefault(keys, ([], model, whole))[0].append(each)
    return found


def _place(error: ErrorDetails, data: Any) -> tuple[Keys, type[BaseModel] | None, Keys] | None:
    """Return where pydantic's location lies in the data, its section's class, and the keys of what to leave out.

    Pydantic's location also names members of unions, which are no keys. In the space these are the kind of a parameter,
    which is left out whole, and ``list[…]`` or ``dict[…]`` for choices, of which only the one that was meant counts: None
    stands for the other.
    """
    loc = error["loc"]
    in_space = loc[:1] == ("space",)
    keys: list[str | int] = []
    whole: Keys | None = None
    model, node = None, data
    for index, part in enumerate(loc):
        if _holds(node, part):
            keys.append(part)
            node = node[part]
        elif in_space and part in _PARAMETERS:
            whole, model = tuple(keys), _PARAMETERS[str(part)]
        elif in_space and str(part).startswith(("list[", "dict[")):
            if str(part).startswith("list[") == isinstance(node, Mapping):
                return None
        elif error["type"] == "missing" and index == len(loc) - 1:
            keys.append(part)
    if whole is not None:
        return tuple(keys), model, whole
    return tuple(keys), messages.section(StudyData, keys[:-1]), tuple(keys)


def _holds(node: Any, part: str | int) -> bool:
    if isinstance(node, list):
        return isinstance(part, int) and part < len(node)
    return isinstance(node, Mapping) and part in node


def _leave_out(data: Any, keys: Keys) -> None:
    node = data
    for key in keys[:-1]:
        if not _holds(node, key):
            return
        node[key] = dict(node[key]) if isinstance(node[key], dict) else node[key]
        node = node[key]
    if isinstance(node, dict) and keys:
        node.pop(keys[-1], None)
    elif isinstance(node, list) and isinstance(keys[-1], int):
        del node[keys[-1] :]


def to_yaml(study: StudyData) -> str:
    """Return the study as a study file; loading that gives an equal study (see :func:`same`).

    A study with a recipe is written with its defaults too, or the recipe would set what it leaves out.
    """
    plain = study.model_dump(by_alias=True, exclude={"space"}, exclude_defaults=study.sweep is None)
    plain |= {"name": study.name, "task": study.task.model_dump(exclude_none=True)}
    if study.space:
        plain["space"] = _plain_space(study.space)
    ordered = {key: plain[key] for key in (f.alias or n for n, f in StudyData.model_fields.items()) if key in plain}
    yaml = YAML()
    yaml.width = 120
    yaml.representer.ignore_aliases = lambda *_: True
    stream = StringIO()
    yaml.dump(_plain(ordered), stream)
    return stream.getvalue()


def _plain_space(level: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain_parameter(parameter) for name, parameter in level.items()}


def _plain_parameter(parameter: Any) -> Any:
    if not isinstance(parameter, (Float, Int, Choice, Expression)):
        return parameter
    written = {
        name: getattr(parameter, name)
        for name, field in type(parameter).model_fields.items()
        # A step of 1 that was written says more than the default: of a float field it makes whole numbers.
        if field.is_required()
        or getattr(parameter, name) != field.default
        or (name == "step" and getattr(parameter, name) == 1 and name in parameter.model_fields_set)
    }
    if isinstance(parameter, Choice) and parameter.branches:
        written["choices"] = {branch: _plain_space(children) for branch, children in parameter.branches.items()}
    return written


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return _plain(value.model_dump(by_alias=True))
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value


def same(one: StudyData, other: StudyData) -> bool:
    """Whether two studies ask the same, wherever their files lie."""
    return all(getattr(one, name) == getattr(other, name) for name in StudyData.model_fields)
