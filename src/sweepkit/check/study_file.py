"""study.yaml → Study and back: recipes merged, ``--set`` applied, every problem at once with its line.

Knows no storage and no process, writes nothing, and imports none of torch, transformers, optuna, ray and mlflow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from ruamel.yaml import YAML

from sweepkit.check import Checked, examine, typed
from sweepkit.check.merging import with_overrides, with_recipe
from sweepkit.check.validation import Validated, validate
from sweepkit.check.yaml import Document, read_file
from sweepkit.study.errors import Problem, StudyFileError
from sweepkit.study.parameters import Choice, Expression, Float, Int
from sweepkit.study.study import StudyData


def load_study(path: Path | str, overrides: Iterable[str] = ()) -> Checked:
    """Return the checked study in a file.

    ``overrides`` are ``a.b=value`` texts as ``--set`` takes them; values are YAML. Raises StudyFileError with every
    problem, in the file's order.
    """
    document, validated = _read(path, overrides)
    problems = _broken_data(document, validated)
    if validated.study is None:
        raise _error(problems, document, path)
    found, checked = examine(validated.study)
    reported = {problem.path for problem in validated.problems}
    problems += [problem for problem in found if not validated.hides(problem.path) and problem.path not in reported]
    if problems:
        raise _error(problems, document, path)
    return checked


def read_study(path: Path | str, overrides: Iterable[str] = ()) -> StudyData:
    """Return the study in a file, checked against its data classes only and not against the installed libraries.

    Raises StudyFileError with what the data classes refuse, in the file's order.
    """
    document, validated = _read(path, overrides)
    problems = _broken_data(document, validated)
    if problems or validated.study is None:
        raise _error(problems, document, path)
    return typed(validated.study)


def _read(path: Path | str, overrides: Iterable[str]) -> tuple[Document, Validated]:
    file, overrides = Path(path), list(overrides)
    home = file.resolve().parent
    document = with_recipe(read_file(file, str(path)), home, overrides)
    document = with_overrides(document, overrides)
    validated = validate(document.data)
    validated.hidden |= {problem.path for problem in document.problems if problem.path}
    if validated.study is not None:
        validated.study = validated.study.at(home)
    return document, validated


def _broken_data(document: Document, validated: Validated) -> list[Problem]:
    unreadable = {problem.path for problem in document.problems}
    return [*document.problems, *(each for each in validated.problems if each.path not in unreadable)]


def _error(problems: Iterable[Problem], document: Document, path: Path | str) -> StudyFileError:
    """Return the error with each problem once, the study file's own by line, then those of others."""
    located = dict.fromkeys(_located(problem, document) for problem in problems)
    return StudyFileError(
        sorted(located, key=lambda p: (p.file != str(path), p.line is None, p.file or "", p.line or 0, p.path))
    )


def _located(problem: Problem, document: Document) -> Problem:
    """The problem with the file and line of its key, or of the nearest key above that is written down."""
    if problem.file is not None:
        return problem
    origin = document.cause(document.locate(problem.path))
    return Problem(problem.path, problem.message, origin.file, origin.line) if origin else problem


def to_yaml(study: StudyData) -> str:
    """Return the study as a study file; loading that gives an equal study (see :func:`same`).

    A study with a recipe is written with its defaults too, because what it leaves out the recipe would say again.
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
        or (name == "step" and name in parameter.model_fields_set)
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
