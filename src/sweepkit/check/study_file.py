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

from sweepkit.check import check as check_study
from sweepkit.check import known_values, typed
from sweepkit.check.merging import with_overrides, with_recipe
from sweepkit.check.schema import explain, schema
from sweepkit.check.validation import validate
from sweepkit.check.yaml import Document, read_file
from sweepkit.study.errors import Problem, StudyFileError
from sweepkit.study.space import Choice, Expression, Float, Int
from sweepkit.study.study import StudyData

__all__ = ["explain", "known_values", "load_study", "same", "schema", "to_yaml"]


def load_study(path: Path | str, overrides: Iterable[str] = (), *, check: bool = True) -> StudyData:
    """Return the study in a file, its numbers fitted to the fields that consume them.

    ``overrides`` are ``a.b=value`` texts as ``--set`` takes them; values are YAML. ``check`` also holds the rules that
    need the installed libraries' sources (see :mod:`sweepkit.check`). Raises StudyFileError with every problem, in the
    file's order.
    """
    file, overrides = Path(path), list(overrides)
    home = file.resolve().parent
    document = with_recipe(read_file(file, str(path)), home, overrides)
    document = with_overrides(document, overrides)
    validated = validate(document.data)
    validated.hidden |= {problem.path for problem in document.problems if problem.path}
    unread = {problem.path for problem in document.problems}
    problems = [
        _placed(problem, document)
        for problem in (*document.problems, *(p for p in validated.problems if p.path not in unread))
    ]
    study = validated.study.at(home) if validated.study is not None else None
    if study is not None and check:
        told = {problem.path for problem in validated.problems}
        problems += [
            _placed(problem, document)
            for problem in check_study(study)
            if not validated.hides(problem.path) and problem.path not in told
        ]
    if problems or study is None:
        raise StudyFileError(_in_order(problems, str(path)))
    return typed(study)


def _placed(problem: Problem, document: Document) -> Problem:
    """The problem with the file and line of its key, or of the nearest key above that is written down."""
    if problem.file is not None:
        return problem
    origin = document.cause(document.locate(problem.path))
    return Problem(problem.path, problem.message, origin.file, origin.line) if origin else problem


def _in_order(problems: Iterable[Problem], first: str) -> list[Problem]:
    """The study file's own problems by line, then those of others."""
    return sorted(
        dict.fromkeys(problems), key=lambda p: (p.file != first, p.line is None, p.file or "", p.line or 0, p.path)
    )


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
