"""Data → Study, with every broken rule of the data classes as a Problem. Knows no lines.

What is broken is left out, so that the rest can be checked too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sweepkit.check.yaml import Keys, dotted
from sweepkit.study import messages as phrases
from sweepkit.study.errors import Problem, nearest
from sweepkit.study.parameters import Choice, Expression, Float, Int
from sweepkit.study.study import StudyData

_PARAMETERS: Mapping[str, type[BaseModel]] = {"float": Float, "int": Int, "choice": Choice, "expression": Expression}
_WAYS = ("low", "high", "choices", "expression")
_ATTEMPTS = 5


@dataclass
class Validated:
    """A study without its broken parts, or None where too much was broken; and what was broken."""

    study: StudyData | None
    problems: list[Problem] = field(default_factory=list)
    hidden: set[str] = field(default_factory=set)
    """Paths that were left out; what the check says of them is no news."""

    def hides(self, path: str) -> bool:
        """Whether a problem at this path may come from what was left out."""
        return any(_within(path, each) or _within(each, path) for each in self.hidden)


def _within(path: str, outer: str) -> bool:
    return path == outer or path.startswith((f"{outer}.", f"{outer}["))


def validate(data: dict[Any, Any]) -> Validated:
    """Return the study in plain data with all that breaks its data classes' rules."""
    data = {key: dict(value) if isinstance(value, dict) else value for key, value in data.items()}
    validated = Validated(None)
    _no_constants(data, validated)
    for _ in range(_ATTEMPTS):
        try:
            validated.study = StudyData.model_validate(data)
            break
        except ValidationError as error:
            before = Validated(None, hidden=set(validated.hidden))
            broken = dict(_broken(error, data))
            for keys, (errors, model, whole) in broken.items():
                path = dotted(keys)
                if not before.hides(path):
                    validated.problems.append(Problem(path, phrases.sentence(errors, model)))
                # What belongs to a sampler or pruner that is not known cannot be judged.
                validated.hidden.add(dotted(whole[:-1] if whole[-1:] == ("type",) else whole))
                _leave_out(data, whole)
            _stand_in(data, validated)
    _hide_uses(data, validated)
    return validated


def _no_constants(data: dict[Any, Any], validated: Validated) -> None:
    """In the space itself each name must say how it varies."""
    space = _mapping(data.get("space"))
    for name, entry in list(space.items()):
        if isinstance(entry, (Float, Int, Choice, Expression)):
            continue
        if isinstance(entry, dict) and set(_WAYS) & set(entry):
            continue
        hint = "; a fixed value belongs in training"
        if isinstance(entry, dict):
            hint = next((near for key in entry if (near := nearest(str(key), _WAYS))), "")
        got = phrases.show(entry)
        validated.problems.append(
            Problem(f"space.{name}", f"must say low and high, choices or expression, got {got}{hint}")
        )
        validated.hidden.add(f"space.{name}")
        del space[name]


def _broken(
    error: ValidationError, data: Any
) -> Iterator[tuple[Keys, tuple[list[ErrorDetails], type[BaseModel] | None, Keys]]]:
    """Yield keys → (errors there, the section's class, what to leave out)."""
    found: dict[Keys, tuple[list[ErrorDetails], type[BaseModel] | None, Keys]] = {}
    for each in error.errors(include_url=False):
        place = _place(each, data)
        if place is not None:
            keys, model, whole = place
            found.setdefault(keys, ([], model, whole))[0].append(each)
    yield from found.items()


def _place(error: ErrorDetails, data: Any) -> tuple[Keys, type[BaseModel] | None, Keys] | None:
    """Where pydantic's location lies in the data; None for the members of a union that were not meant."""
    loc = error["loc"]
    if loc[:1] == ("space",) and len(loc) > 1:
        return _place_in_space(error, data)
    keys: list[str | int] = []
    node = data
    for index, part in enumerate(loc):
        if _holds(node, part):
            node = node[part]
        elif not (error["type"] == "missing" and index == len(loc) - 1):
            continue
        keys.append(part)
    return tuple(keys), phrases.section(StudyData, keys[:-1]), tuple(keys)


def _holds(node: Any, part: str | int) -> bool:
    if isinstance(node, list):
        return isinstance(part, int) and part < len(node)
    return isinstance(node, Mapping) and part in node


def _place_in_space(error: ErrorDetails, data: Any) -> tuple[Keys, type[BaseModel] | None, Keys] | None:
    keys: list[str | int] = ["space"]
    node, rest = data["space"], list(error["loc"][1:])
    whole: Keys = ("space",)
    model: type[BaseModel] | None = None
    while rest:
        name = rest.pop(0)
        keys.append(name)
        whole = tuple(keys)
        if rest[:1] == ["[key]"] or not isinstance(node, Mapping) or name not in node:
            break
        node = node[name]
        model = _PARAMETERS.get(str(rest.pop(0))) if rest else None
        if not rest:
            break
        key = rest.pop(0)
        if isinstance(node, Mapping) and (key in node or error["type"] == "missing"):
            keys.append(key)
        if key != "choices" or not rest:
            break
        member = str(rest.pop(0))
        choices = node["choices"] if isinstance(node, Mapping) else None
        if member.startswith("list[") == isinstance(choices, Mapping):
            return None
        if not rest or not isinstance(choices, Mapping):
            break
        branch = rest.pop(0)
        keys.append(branch)
        if branch not in choices or rest[:1] == ["[key]"]:
            break
        node = choices[branch]
        if not rest:
            break
    return tuple(keys), model, whole


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


def _stand_in(data: dict[Any, Any], validated: Validated) -> None:
    """Put something harmless where a study cannot do without; what the check says of it is hidden."""
    if "name" not in data:
        data["name"] = "study"
        validated.hidden.add("name")
    task = data.get("task")
    if not isinstance(task, dict) or sum(task.get(way) is not None for way in ("type", "path", "pickle")) != 1:
        data["task"] = {"type": "unknown"}
        validated.hidden.add("task")
    objective = data.get("objective")
    if not isinstance(objective, dict) or (
        "metrics" not in objective and len({"metric", "direction"} & set(objective)) < 2
    ):
        metric = _mapping(objective).get("metric")
        if not isinstance(metric, str):
            metric = "eval_loss"
            validated.hidden.add("objective.metric")
        data["objective"] = {**_mapping(objective), "metric": metric, "direction": "minimize"}
        validated.hidden.add("objective.direction")


def _mapping(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _hide_uses(data: dict[Any, Any], validated: Validated) -> None:
    """What uses a parameter that was left out cannot be judged."""
    names = {path.removeprefix("space.") for path in validated.hidden if path.startswith("space.")}
    for name in names:
        validated.hidden |= {f"baseline.{name}"}
        enqueue, constraints = data.get("enqueue"), data.get("constraints")
        validated.hidden |= {
            f"enqueue[{index}].{name}" for index in range(len(enqueue) if isinstance(enqueue, list) else 0)
        }
        for index, text in enumerate(constraints if isinstance(constraints, list) else ()):
            if re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.])", str(text)):
                validated.hidden.add(f"constraints[{index}]")
