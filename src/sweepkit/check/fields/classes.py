"""Reads fields, defaults, enums and signatures of Python classes from source files."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from sweepkit.check.fields.modules import UNKNOWN, find_class, kept, literal

_NAMES = {
    "bool": "bool",
    "int": "int",
    "float": "float",
    "str": "str",
    "Path": "str",
    "dict": "dict",
    "Dict": "dict",
    "Mapping": "dict",
    "list": "list",
    "List": "list",
    "tuple": "list",
    "Sequence": "list",
    "set": "list",
    "None": "none",
}


@dataclass(frozen=True)
class Field:
    """What one name accepts, as far as the source tells."""

    name: str
    kinds: frozenset[str] = frozenset()
    """Among bool, int, float, str, dict, list, none; empty: anything."""
    default: Any = UNKNOWN
    choices: tuple[str, ...] = ()
    """The only texts it accepts; empty: any text."""
    required: bool = False


class Method(NamedTuple):
    """A method and the file that defines it."""

    node: ast.FunctionDef
    file: Path


@dataclass(frozen=True)
class Class:
    """A class as its source defines it, with the fields and methods of the bases that could be read."""

    name: str
    file: Path
    fields: Mapping[str, Field]
    methods: Mapping[str, Method]
    constants: Mapping[str, Any]
    """Literal class attributes that are not fields (``model_type``, ``attribute_map``, …)."""
    bases: tuple[str, ...]
    """Every name among the bases of it and of its bases."""
    unread: tuple[str, ...]
    """Bases whose source was not found."""


@kept
def read_class(file: Path, name: str) -> Class | None:
    """Return what a class accepts, including its readable bases; None where the file has no such class."""
    found = find_class(file, name)
    if found is None:
        return None
    node, home = found
    fields: dict[str, Field] = {}
    methods: dict[str, Method] = {}
    constants: dict[str, Any] = {}
    bases: list[str] = []
    unread: list[str] = []
    for base in reversed(node.bases):
        base_name = ast.unparse(base).rpartition(".")[2]
        bases.append(base_name)
        parent = read_class(home, base_name) if base_name != name else None
        if parent is None:
            unread.append(base_name)
            continue
        fields |= parent.fields
        methods |= parent.methods
        constants |= parent.constants
        bases += parent.bases
        unread += parent.unread
    local: dict[str, Any] = {}
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef):
            methods[statement.name] = Method(statement, home)
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            key, annotation = statement.target.id, ast.unparse(statement.annotation)
            if annotation.startswith(("ClassVar", "typing.ClassVar")):
                _keep_literal(constants, key, statement.value)
            elif not key.startswith("_"):
                field = _field(key, statement, home, local)
                fields[field.name] = field
        elif isinstance(statement, ast.Assign):
            for target in statement.targets:
                if isinstance(target, ast.Name):
                    _keep_literal(constants, target.id, statement.value)
                    _keep_literal(local, target.id, statement.value)
                    if target.id in fields and target.id in constants:
                        old = fields[target.id]
                        fields[target.id] = Field(old.name, old.kinds, constants[target.id], old.choices)
    return Class(name, home, MappingProxyType(fields), methods, constants, tuple(bases), tuple(unread))


def _keep_literal(target: dict[str, Any], key: str, value: ast.expr | None) -> None:
    found = literal(value)
    if found is not UNKNOWN:
        target[key] = found


def _field(name: str, statement: ast.AnnAssign, file: Path, local: Mapping[str, Any]) -> Field:
    kinds, choices = _accepted(statement.annotation, file)
    value = statement.value
    if value is None:
        return Field(name, kinds, UNKNOWN, choices, required=True)
    if not isinstance(value, ast.Call) or _last(value.func) not in ("field", "Field"):
        return Field(name, kinds, literal(value), choices)
    given = {keyword.arg: keyword.value for keyword in value.keywords if keyword.arg}
    for key in ("alias", "validation_alias"):
        if key in given:
            name = str(literal(given[key]))
    if "metadata" in given:
        choices = _listed(given["metadata"]) or choices
    if "default_factory" in given:
        factory = ast.unparse(given["default_factory"])
        return Field(name, kinds, {"list": [], "dict": {}}.get(factory, UNKNOWN), choices)
    default = given.get("default", value.args[0] if value.args else None)
    if default is None or (isinstance(default, ast.Constant) and default.value is Ellipsis):
        return Field(name, kinds, UNKNOWN, choices, required=True)
    known = local.get(default.id, UNKNOWN) if isinstance(default, ast.Name) else literal(default)
    return Field(name, kinds, known, choices)


def _listed(metadata: ast.expr) -> tuple[str, ...]:
    """Return the texts under ``choices`` in a field's metadata."""
    for key, value in zip(metadata.keys, metadata.values, strict=True) if isinstance(metadata, ast.Dict) else ():
        listed = literal(value)
        if literal(key) == "choices" and isinstance(listed, list):
            return tuple(text for text in listed if isinstance(text, str))
    return ()


def _accepted(node: ast.expr | None, file: Path) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return the kinds and the closed set of texts that an annotation allows; nothing where it names another class."""
    if node is None:
        return frozenset(), ()
    kinds: set[str] = set()
    choices: list[str] = []
    open_text = False
    for part in _alternatives(node):
        if isinstance(part, ast.Constant):
            kinds.add("none")
        elif isinstance(part, ast.Subscript) and _last(part.value) == "Literal":
            members = part.slice.elts if isinstance(part.slice, ast.Tuple) else [part.slice]
            for value in map(literal, members):
                kinds.add("none" if value is None else type(value).__name__)
                choices += [value] if isinstance(value, str) else []
        elif name := _NAMES.get(_last(part.value if isinstance(part, ast.Subscript) else part)):
            kinds.add(name)
            open_text = open_text or name == "str"
        elif values := _enum(file, _last(part)):
            kinds.add("str")
            choices += values
        else:
            return frozenset(), ()
    # ``SchedulerType | str`` means the enum's own texts; ``pissa_niter_[number of iters]`` is a pattern.
    enumerated = any(_enum(file, _last(part)) for part in _alternatives(node))
    closed = (enumerated or not open_text) and not any("[" in text for text in choices)
    return frozenset(kinds), tuple(choices) if closed else ()


def _alternatives(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield from _alternatives(ast.parse(node.value, mode="eval").body)
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        yield from _alternatives(node.left)
        yield from _alternatives(node.right)
    elif isinstance(node, ast.Subscript) and _last(node.value) in ("Union", "Optional", "Annotated"):
        members = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        for member in members[:1] if _last(node.value) == "Annotated" else members:
            yield from _alternatives(member)
        if _last(node.value) == "Optional":
            yield ast.Constant(None)
    else:
        yield node


def _last(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


@kept
def _enum(file: Path, name: str) -> tuple[str, ...]:
    found = find_class(file, name) if name else None
    if found is None or not any(_last(base).endswith("Enum") for base in found[0].bases):
        return ()
    values = [literal(node.value) for node in found[0].body if isinstance(node, ast.Assign)]
    return tuple(value for value in values if isinstance(value, str))


@kept
def read_signature(file: Path, name: str) -> Mapping[str, Field]:
    """Return the parameters of a class's ``__init__``, without self."""
    found = read_class(file, name)
    if found is None or "__init__" not in found.methods:
        return {}
    return signature(found.methods["__init__"])


def signature(method: Method) -> dict[str, Field]:
    """Return a method's named parameters, without self."""
    spec = method.node.args
    positional = [*spec.posonlyargs, *spec.args][1:]
    defaults: list[ast.expr | None] = [
        *[None] * (len(positional) - len(spec.defaults)),
        *spec.defaults[-len(positional) :],
    ]
    result: dict[str, Field] = {}
    for argument, default in zip([*positional, *spec.kwonlyargs], [*defaults, *spec.kw_defaults], strict=True):
        kinds, choices = _accepted(argument.annotation, method.file)
        result[argument.arg] = Field(argument.arg, kinds, literal(default), choices, required=default is None)
    return result
