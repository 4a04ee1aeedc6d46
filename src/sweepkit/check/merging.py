"""Merges a study's recipe beneath it and ``--set`` on top, keeping the origin of every key."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sweepkit.check.yaml import Document, Keys, Origin, key_text, read, read_file, split
from sweepkit.study.errors import Problem, StudyFileError, nearest
from sweepkit.study.files import exists
from sweepkit.study.names import UNSET, find, is_inside
from sweepkit.study.parameters import flatten, is_parameter
from sweepkit.study.paths import project_root

PACKAGED = Path(__file__).with_name("recipes")
"""The recipes that ship with sweepkit: the repository's ``sweeps/``."""
RECIPE_KEYS = (
    "training",
    "space",
    "constraints",
    "duplicates",
    "search",
    "sampler",
    "pruner",
    "baseline",
    "enqueue",
    "budget",
    "checkpoints",
    "retries",
    "confirm",
)
"""A recipe says how to search, not what is asked."""
OPTIONS = {"--backend": "backend.type", "--parallel": "backend.parallel"}
"""Options of the command line that are short for ``--set``."""
_NAMESPACES = ("model", "peft", "task")
_NAMED = ("training", "space", "baseline", "enqueue")


def recipe_folders(home: Path) -> list[Path]:
    """Return where recipes are looked up by name: the project's ``sweeps/``, then those that ship with sweepkit."""
    return [project_root(home) / "sweeps", PACKAGED]


def find_recipe(name: str, home: Path) -> Path:
    """Return the file of a recipe given by name or by path (relative to ``home``). Raises ValueError."""
    if "/" in name or name.endswith((".yaml", ".yml")):
        path = (home / Path(name).expanduser()).resolve()
        if not exists(path) or not path.is_file():
            raise ValueError(f"there is no file {name} (looked in {home})")
        return path
    folders = recipe_folders(home)
    for folder in folders:
        if exists(folder / f"{name}.yaml"):
            return folder / f"{name}.yaml"
    known = sorted({file.stem for folder in folders for file in folder.glob("*.yaml")})
    raise ValueError(f"there is no recipe {name}{nearest(name, known) or '; there are ' + ', '.join(known)}")


def with_recipe(document: Document, home: Path, overrides: Iterable[str]) -> Document:
    """Return the study's document merged over its recipe, with the problems of both."""
    name, where = document.data.get("sweep"), ("sweep",)
    origin = document.origin(where)
    for override in overrides:
        key, equals, text = override.partition("=")
        if key.strip() == "sweep" and equals:
            name, origin = read(text, f"--set {key}", line=False).data, Origin(f"--set {key}")
    if not isinstance(name, str):
        return document
    try:
        file = find_recipe(name, home)
        recipe = read_file(file, label_of(file))
    except ValueError as error:
        assert origin is not None
        document.problems.append(Problem("sweep", str(error), origin.file, origin.line))
        return document
    except StudyFileError as error:
        document.problems.extend(error.problems)
        return document
    for key in set(recipe.data) - set(RECIPE_KEYS):
        place = recipe.origin((key,))
        message = f"a recipe says how to search; expected one of {', '.join(RECIPE_KEYS)}"
        recipe.problems.append(Problem(str(key), message, *((place.file, place.line) if place else ())))
        del recipe.data[key]
    return beneath(flat(document), flat(recipe))


def label_of(file: Path) -> str:
    """Return a path as messages write it: relative to the current folder where it lies inside."""
    relative = os.path.relpath(file)
    return str(file) if relative.startswith("..") else relative


def beneath(study: Document, lower: Document) -> Document:
    """Return a study's document with the keys of another where it has none itself: section by section, name by name."""
    merged = Document(dict(study.data), dict(study.origins), [*study.problems, *lower.problems])
    for key, value in _without_rivals(lower.data, study.data).items():
        if key not in study.data:
            merged.data[key] = value
            _adopt(merged, lower, (key,))
        elif isinstance(value, dict) and isinstance(study.data[key], dict):
            own = study.data[key]
            kept = _of_its_type(value, own)
            merged.data[key] = {**kept, **own}
            for name in kept:
                if name not in own:
                    _adopt(merged, lower, (key, name))
    _give_way(merged, study.data, lower.origins[()].file)
    return merged


def _without_rivals(loser: dict[Any, Any], winner: dict[Any, Any]) -> dict[Any, Any]:
    """Return what stays of ``loser``: ``search`` replaces sampler and pruner, except for ``sampler.seed``."""
    result = dict(loser)
    if "pruner" in winner or as_mapping(winner.get("sampler")).keys() - {"seed"}:
        result.pop("search", None)
    if "search" in winner:
        result.pop("pruner", None)
        seed = {name: value for name, value in as_mapping(result.pop("sampler", None)).items() if name == "seed"}
        result |= {"sampler": seed} if seed else {}
    return result


def _adopt(merged: Document, source: Document, keys: Keys) -> None:
    merged.origins |= {at: origin for at, origin in source.origins.items() if at[: len(keys)] == keys}


def _of_its_type(section: dict[Any, Any], wins: dict[Any, Any]) -> dict[Any, Any]:
    """Return what stays of a sampler's or pruner's section under another ``type``: its options belong to the old one."""
    if "path" in wins or ("type" in wins and wins["type"] != section.get("type")):
        return {name: value for name, value in section.items() if name == "seed"}
    return section


def _give_way(document: Document, winner: dict[Any, Any], loser: str | None) -> None:
    """Drop names that ``winner`` fixes from the space, and names it searches from the fixed ones.

    ``loser``: the file whose keys give way; None for any.
    """
    options = {f"task.{name}": value for name, value in as_mapping(winner.get("task")).items()}
    fixed, searched = {**as_mapping(winner.get("training")), **options}, as_mapping(winner.get("space"))
    for section, others in (("space", fixed), ("baseline", fixed), ("training", searched)):
        for name, value in as_mapping(document.data.get(section)).items():
            origin = document.origin((section, name))
            mine = name in as_mapping(winner.get(section))
            if not mine and (loser is None or (origin is not None and origin.file == loser)):
                rest = {key: each for key, each in document.data[section].items() if key != name}
                kept = _without(str(name), value, others)
                document.data[section] = rest if kept is UNSET else {**rest, name: kept}


def _without(name: str, value: Any, others: dict[str, Any]) -> Any:
    """Return a name's value without the keys that other names stand for; UNSET where they stand for all of it."""
    if find(others, name) is not UNSET:
        return UNSET
    if not any(is_inside(other, name) for other in others):
        return value
    if not isinstance(value, dict) or is_parameter(value):
        return UNSET
    inner = {key: _without(f"{name}.{key}", each, others) for key, each in value.items()}
    return {key: each for key, each in inner.items() if each is not UNSET} or UNSET


def as_mapping(value: Any) -> dict[Any, Any]:
    """Return the value if it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def with_overrides(document: Document, overrides: Iterable[str]) -> Document:
    """Return the document with each ``a.b=value`` laid over it; the value is read as YAML."""
    document = flat(document)
    result = Document(_copy(document.data), dict(document.origins), list(document.problems))
    set_by_hand: dict[Any, Any] = {}
    for override in overrides:
        path, equals, text = override.partition("=")
        path = path.strip()
        path, label = OPTIONS.get(path, path), path if path in OPTIONS else f"--set {path}"
        if not equals or not path:
            result.problems.append(Problem("", f"expected KEY=VALUE, got {override!r}", "--set"))
            continue
        try:
            value = read(text, label, line=False)
            chosen = value.data
            for part in reversed(split(path)):
                chosen = {part: chosen}
            result.data = _without_rivals(result.data, chosen)
            keys = _put(result.data, split(path), value.data)
        except StudyFileError as error:
            result.problems.append(Problem("", error.problems[0].message, label))
            continue
        except ValueError as error:
            result.problems.append(Problem(path, str(error), label))
            continue
        result.problems.extend(value.problems)
        result.origins = {at: origin for at, origin in result.origins.items() if at[: len(keys)] != keys}
        for length in range(1, len(keys)):
            result.origins.setdefault(keys[:length], Origin(label))
        result.origins[keys] = Origin(label)
        if keys[-1] == "type" and len(keys) == 2 and keys[0] in ("sampler", "pruner"):
            before = as_mapping(as_mapping(document.data).get(keys[0]))
            for name in set(before) - set(_of_its_type(before, {"type": value.data})) - {"type"}:
                if result.origins.get((keys[0], name)) == document.origins.get((keys[0], name)):
                    del result.data[keys[0]][name]
        if len(keys) == 2 or keys[0] in ("training", "task") or (keys[0] == "space" and is_parameter(value.data)):
            set_by_hand.setdefault(keys[0], {})[".".join(map(str, keys[1:]))] = value.data
    result = flat(result)
    _give_way(result, set_by_hand, None)
    return result


def flat(document: Document) -> Document:
    """Return the document with its space's parameters inside mappings under dotted names, each with its origin."""
    space = as_mapping(as_mapping(document.data).get("space"))
    try:
        flattened = flatten(space)
    except ValueError as error:
        name, _, message = str(error).partition(": ")
        origin = document.cause(document.locate(f"space.{name}")) or Origin("")
        document.problems.append(Problem(f"space.{name}", message, origin.file, origin.line))
        flattened = {}
    if flattened == space:
        return document
    result = Document({**document.data, "space": flattened}, {}, document.problems)
    for keys, origin in document.origins.items():
        moved = result.locate(key_text(keys)) if keys[:1] == ("space",) else keys
        if key_text(moved) == key_text(keys):
            result.origins[moved] = origin
    return result


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(each) for key, each in value.items()}
    return [_copy(each) for each in value] if isinstance(value, list) else value


def _put(data: Any, parts: list[str | int], value: Any) -> Keys:
    """Set the value at a path, creating mappings on the way, and return its keys. Raises ValueError."""
    keys: list[str | int] = []
    node = data
    while True:
        key = _next(node, parts, keys)
        parts = parts[1 if isinstance(key, int) else len(split(key)) :]
        keys.append(key)
        if not parts:
            node[key] = value
            return tuple(keys)
        if isinstance(node, dict) and node.get(key) is None:
            node[key] = {}
        node = node[key]


def _next(node: Any, parts: list[str | int], above: list[str | int]) -> str | int:
    if isinstance(node, list):
        if isinstance(parts[0], int) and parts[0] < len(node):
            return parts[0]
        raise ValueError(f"expected a place from 0 to {len(node) - 1} in the list, got {parts[0]}")
    if not isinstance(node, dict):
        raise ValueError(f"{'.'.join(map(str, above))} holds {node!r}, which has no key {parts[0]}")
    for length in range(len(parts), 0, -1):
        key = ".".join(map(str, parts[:length]))
        if key in node:
            return key
    if above and above[0] in _NAMED and parts[0] in _NAMESPACES and len(parts) > 1:
        return f"{parts[0]}.{parts[1]}"
    return str(parts[0])
