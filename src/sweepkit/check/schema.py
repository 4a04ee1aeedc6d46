"""The JSON schemas of study files and recipes, with which editors complete, explain and check them.

Each fact comes from where the check has it: the study's models, the built-in kinds, the installed TrainingArguments, Optuna's
classes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from sweepkit.check.fields import UNKNOWN, Field
from sweepkit.check.fields.arguments import REMOVED, RENAMED, UNTYPED, what_became_of
from sweepkit.check.fields.describe import fields_of, prose
from sweepkit.check.fields.installed import TRAINING_ARGUMENTS, peft_fields, read_installed
from sweepkit.check.merging import RECIPE_KEYS
from sweepkit.check.rules.population import OPTIONS
from sweepkit.check.rules.pruning import pruner_options
from sweepkit.check.rules.searching import sampler_options
from sweepkit.study.samplers import PRUNERS, SAMPLERS
from sweepkit.study.study import PrunerSpec, SamplerSpec, StudyData
from sweepkit.tasks.adapters import DEFAULT
from sweepkit.tasks.arguments import OWNED, SWEEPKIT_DEFAULTS, why_owned
from sweepkit.tasks.kinds import KINDS, kind_class

_Fields = Mapping[str, Field]
_JSON = {
    "bool": "boolean",
    "int": "integer",
    "float": "number",
    "str": "string",
    "dict": "object",
    "list": "array",
    "none": "null",
}


def schema(kinds: Collection[str] = tuple(KINDS)) -> dict[str, Any]:
    """Return the JSON schema of a study file (draft 2020-12), for the installed transformers, PEFT and Optuna.

    ``kinds``: the built-in kinds whose Trainer's own arguments are looked up, which imports its library the first time.
    """
    found, plain = _study(), read_installed().training
    own = {
        cls.arguments_type: read_installed((), cls.arguments_type).training
        for cls in (kind_class(kind) for kind in kinds)
        if cls.arguments_type != TRAINING_ARGUMENTS
    }
    conditions = [_of_kind(kind, found["$defs"], plain, own) for kind in KINDS]
    found["allOf"] = [_built_in(), *conditions]
    return _titled("study", StudyData.__doc__ or "", found)


def recipe_schema() -> dict[str, Any]:
    """Return the JSON schema of a recipe: the keys of a study that say how to search, none of them required."""
    study = _study()
    found = {
        "type": "object",
        "properties": {name: study["properties"][name] for name in RECIPE_KEYS},
        "additionalProperties": False,
    }
    found["$defs"] = {name: study["$defs"][name] for name in sorted(_used(found, study["$defs"]))}
    return _titled("recipe", "How to search, for any study that names it under sweep; the study's own keys win.", found)


def _titled(what: str, meaning: str, found: dict[str, Any]) -> dict[str, Any]:
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"sweepkit {what}"}
    return {**head, "description": meaning.strip(), **found}


def _study() -> dict[str, Any]:
    """Return what holds for every task."""
    found: dict[str, Any] = _tidy(StudyData.model_json_schema(by_alias=True))
    definitions, properties = found["$defs"], found["properties"]
    for name, field in StudyData.model_fields.items():
        # Where pydantic refers to a section's class, it leaves out the key's own description.
        properties[field.alias or name].setdefault("description", prose([field.description or ""]))
    definitions |= {name: {"anyOf": list(map(_ref, classes))} for name, classes in _PARAMETERS.items()}
    definitions["Inside"] = {
        "type": "object",
        "properties": {},
        "additionalProperties": _ref("AnyParameter"),
        "minProperties": 1,
    }
    names = dict(_names())
    gone = {name: _deprecated(what_became_of(name)) for name in (*RENAMED, *REMOVED) if name not in names}
    others = gone | {name: {"description": f"Set by sweepkit: {why}.", **_NOTHING} for name, why in OWNED.items()}
    values = {name: _value(field) for name, field in names.items()}
    definitions["Values"] = {"type": "object", "properties": values | others}
    definitions["Outdated"] = {"properties": dict.fromkeys(gone, _NOTHING)}
    properties["training"] |= _ref("Values")
    properties["baseline"]["anyOf"][0] = properties["enqueue"]["items"] = _ref("Values")
    parameters = {name: _parameter(field) for name, field in names.items()}
    properties["space"] |= {"properties": parameters | others, "additionalProperties": _ref("AnyParameter")}
    task = definitions["TaskSpec"]
    task["properties"]["type"]["anyOf"][0]["enum"] = list(KINDS)
    task["allOf"] = [{"if": _chosen(kind), "then": _ref(kind)} for kind in KINDS]
    for kind in KINDS:
        definitions |= _options(kind)
    samplers = {name: sampler_options(row) for name, row in SAMPLERS.items()}
    pruners = {name: OPTIONS.get(name) or pruner_options(row) for name, row in PRUNERS.items()}
    definitions["SamplerSpec"]["allOf"] = list(_by_type(SamplerSpec, samplers))
    definitions["PrunerSpec"]["allOf"] = list(_by_type(PrunerSpec, pruners))
    return found


def _names() -> Iterator[tuple[str, Field]]:
    """Yield the names of every study, and what each takes: the plain Trainer's arguments, and PEFT's usual method."""
    found = read_installed()
    for name, field in found.training.items():
        if why_owned(name) is None:
            yield name, replace(field, default=SWEEPKIT_DEFAULTS.get(name, field.default))
    peft = peft_fields(found.adapters, [DEFAULT]) if found.adapters else {}
    yield from ((f"peft.{name}", field) for name, field in peft.items())


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


def _deprecated(text: str) -> dict[str, Any]:
    return {"description": text, "deprecated": True, "deprecationMessage": text}  # the last one is VS Code's


def _value(field: Field) -> dict[str, Any]:
    """Return what a field takes."""
    found: dict[str, Any] = {"description": field.meaning} if field.meaning else {}
    if field.meaning.startswith("Deprecated"):
        found = _deprecated(field.meaning)
    kinds = field.kinds | UNTYPED.get(field.name, frozenset()) if field.kinds else frozenset[str]()
    closed = bool(field.choices) and "str" in kinds
    types = [_JSON[kind] for kind in sorted(kinds - {"str"} if closed else kinds)]
    if closed:
        texts = {"enum": list(field.choices)}
        found |= {"anyOf": [texts, {"type": types}]} if types else texts
    elif types:
        found["type"] = types if len(types) > 1 else types[0]
    if field.default is not UNKNOWN and field.default is not None:
        found["default"] = field.default
    return found


_NOTHING: dict[str, Any] = {"not": {}}
_PARAMETERS = {
    "Listed": ("Choice", "Expression"),
    "Whole": ("Int", "Choice", "Expression"),
    "Number": ("Float", "Int", "Choice", "Expression"),
    "AnyParameter": ("Float", "Int", "Choice", "Expression", "Inside"),
}
"""What may stand in the space for a field: by the kinds of its values."""


def _parameter(field: Field) -> dict[str, Any]:
    """Return what may stand in the space for a field."""
    form = "Number" if "float" in field.kinds else "Whole" if "int" in field.kinds else "Listed"
    told = {"description": field.meaning} if field.meaning else {}
    return {**told, **_ref("AnyParameter" if not field.kinds or "dict" in field.kinds else form)}


def _options(kind: str) -> dict[str, Any]:
    """Return a definition of what ``task`` may have for a kind, by its name, and those that it refers to."""
    found: dict[str, Any] = _tidy(kind_class(kind).model_json_schema(by_alias=True))
    needed = found.pop("$defs", {})
    found.pop("required", None)  # an option may be searched instead: see _needed
    return {**needed, kind: {**found, "properties": {"type": True, **found["properties"]}}}


def _chosen(kind: str) -> dict[str, Any]:
    return {"properties": {"type": {"const": kind}}, "required": ["type"]}


def _of_task(condition: dict[str, Any]) -> dict[str, Any]:
    return {"properties": {"task": condition}, "required": ["task"]}


def _named(values: Any, space: Any) -> dict[str, Any]:
    """Return what is demanded of every section that holds names of hyperparameters."""
    return {"training": values, "baseline": values, "enqueue": {"items": values}, "space": space}


def _built_in() -> dict[str, Any]:
    """Return what holds for every built-in kind: names of older transformers are gone."""
    return {
        "if": _of_task({"properties": {"type": {"type": "string"}}, "required": ["type"]}),
        "then": {"properties": _named(_ref("Outdated"), _ref("Outdated"))},
    }


def _needed(kind: str) -> dict[str, Any]:
    """Return which options a study of a kind has to have: fixed, searched, or taken from a recipe."""
    names = kind_class(kind).model_json_schema(by_alias=True).get("required", [])
    searched = [{"properties": {"space": {"required": [f"task.{name}"]}}, "required": ["space"]} for name in names]
    return {
        "if": {"not": {"anyOf": [{"required": ["sweep"]}, *searched]}},
        "then": {"properties": {"task": {"required": names}}},
    }


def _of_kind(kind: str, definitions: dict[str, Any], plain: _Fields, own: Mapping[str, _Fields]) -> dict[str, Any]:
    """Return which names a study of a kind has beside those of every study, and which are all that ``training`` may have.

    ``own``: the arguments of Trainers other than the plain one, by ``module:Class``, as far as they were looked up.
    """
    cls = kind_class(kind)
    known = own.get(cls.arguments_type, plain)
    names = {name: field for name, field in known.items() if why_owned(name) is None and name not in plain}
    options = {f"task.{name}": field for name, field in fields_of(cls).items() if name != "data"}
    names |= options
    definitions[f"{kind}-values"] = {"properties": {name: _value(field) for name, field in names.items()}}
    values, parameters = _ref(f"{kind}-values"), {name: _parameter(field) for name, field in names.items()}
    fixed: dict[str, Any] = {"properties": dict.fromkeys(options, _NOTHING)}  # fixed options of a task stand under task
    if cls.arguments_type in (TRAINING_ARGUMENTS, *own):
        fixed["propertyNames"] = {"anyOf": [{"enum": list({**known, **RENAMED, **REMOVED})}, {"pattern": r"\."}]}
    sections = {**_named(values, {"properties": parameters}), "training": {"allOf": [values, fixed]}}
    return {"if": _of_task(_chosen(kind)), "then": {"properties": sections, **_needed(kind)}}


def _by_type(section: type[SamplerSpec | PrunerSpec], rows: Mapping[str, _Fields]) -> Iterator[Any]:
    """Yield, for each type, that the section has its options and no others."""
    for name, options in rows.items():
        default = section.model_fields["type"].default == name
        chosen = {"properties": {"type": {"const": name}}, "not": {"required": ["path"]}} if default else _chosen(name)
        properties = {**dict.fromkeys(section.model_fields, True), **{each: _value(options[each]) for each in options}}
        yield {"if": chosen, "then": {"properties": properties, "additionalProperties": False}}


def _used(node: Any, definitions: Mapping[str, Any], seen: Iterable[str] = ()) -> set[str]:
    """Return the names of the definitions that a schema refers to, directly or through others."""
    found = set(seen)
    for name in re.findall(r"#/\$defs/([\w-]+)", repr(node)):
        if name not in found:
            found = _used(definitions[name], definitions, {*found, name})
    return found


def _tidy(node: Any) -> Any:
    """Return pydantic's schema without titles, with descriptions in one line and ``anyOf`` for parameters.

    Every parameter is also a valid constant, so that ``oneOf`` would refuse what two of them take.
    """
    if isinstance(node, list):
        return [_tidy(each) for each in node]
    if not isinstance(node, dict):
        return node
    found = {("anyOf" if key == "oneOf" else key): _tidy(value) for key, value in node.items()}
    if isinstance(found.get("title"), str):
        del found["title"]
    if isinstance(found.get("description"), str):
        found["description"] = prose([found["description"]])
    if found.get("default", ...) is None:
        del found["default"]
    return found
