"""Messages about a wrong value: what was expected and what was found, also for pydantic's errors."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from sweepkit.study.errors import nearest
from sweepkit.study.paths import NAMING

_MANY = 15
KINDS: Mapping[str, str] = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "dict": "a mapping",
    "list": "a list",
    "none": "null",
}
_ORDER = tuple(KINDS)

_PYDANTIC: Mapping[str, str] = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "none_required": "null",
    "path_type": "a path",
    "string_pattern_mismatch": NAMING,
}


def show(value: Any) -> str:
    """Return a value as written in a message, with its kind unless that is obvious."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    text = value.isoformat() if isinstance(value, date) else repr(value)
    text = text if len(text) <= 80 else f"{text[:77]}…"
    kind = kind_of(value)
    return f"{text} ({KINDS.get(kind, kind)})"


def kind_of(value: Any) -> str:
    """Return a value's kind: bool, int, float, str, dict, list or none; for anything else, its type's name."""
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return "list"
    return "dict" if isinstance(value, Mapping) else type(value).__name__


def kinds(accepted: frozenset[str]) -> str:
    """Return a set of kinds in words, for example ``a number or null``."""
    shown = accepted - {"int"} if "float" in accepted else accepted
    return either(KINDS[kind] for kind in _ORDER if kind in shown)


def either(words: Any) -> str:
    """Join distinct words with commas and a final *or*."""
    *most, last = dict.fromkeys(words)
    return f"{', '.join(most)} or {last}" if most else str(last)


def one_of(members: Sequence[str], value: str) -> str:
    """Return a closed set in words; of a large one, only members similar to the value."""
    if len(members) <= _MANY:
        return f"one of {', '.join(members)}"
    like = [*(text for text in members if text.startswith(value)), *get_close_matches(value, members, n=4, cutoff=0.4)]
    shown = list(dict.fromkeys([*like[:4], *members[:3]]))[:4]
    return f"one of {len(members)} ({', '.join(shown)}, …)"


def near(value: str, members: Iterable[str]) -> str:
    """Return ``"; did you mean X?"`` for the first member that starts with the value, else for the nearest one."""
    members = list(members)
    longer = next((text for text in members if value and text.lower().startswith(value.lower())), None)
    return f"; did you mean {longer}?" if longer else nearest(value, members)


def quote_hint(value: str) -> str:
    """Return a hint if the text is a quoted number, boolean or null; else an empty string."""
    low = value.strip().lower()
    meant = {"true": "true", "false": "false", "null": "null", "none": "null", "yes": "true", "no": "false"}.get(low)
    if meant is None:
        try:
            float(low)
        except ValueError:
            return ""
        meant = value.strip()
    return f"; write {meant} without quotes" if meant == value.strip() else f"; write {meant}"


def expectation(error: ErrorDetails) -> str:
    """Return what was expected, according to a pydantic error."""
    kind, context = error["type"], error.get("ctx", {})
    limits = {
        "greater_than_equal": ("at least", "ge"),
        "greater_than": ("above", "gt"),
        "less_than_equal": ("at most", "le"),
    }
    if kind in limits:
        word, key = limits[kind]
        return f"{word} {context[key]:g}"
    if kind == "literal_error":
        return either(str(context["expected"]).replace("'", "").replace(" or ", ", ").split(", "))
    if kind == "string_too_long":
        return f"at most {context['max_length']} characters"
    return _PYDANTIC.get(kind, "another value")


def sentence(errors: list[ErrorDetails], model: type[BaseModel] | None, meant: str = "") -> str:
    """Return one message for all pydantic errors at the same place in a section of class ``model``.

    ``meant`` is a hint that wins over the most similar name.
    """
    error = errors[0]
    key = str(error["loc"][-1]) if error["loc"] else ""
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    if error["type"] == "extra_forbidden":
        known = keys(model) if model else []
        listed = f"; known are {', '.join(known)}" if known else ""
        return f"unknown key{meant or nearest(key, known) or listed}"
    if error["type"] == "missing":
        meaning = describe(model, key) if model else ""
        return f"is missing ({meaning})" if meaning else "is missing"
    if "[key]" in error["loc"]:
        return f"keys are text, got {show(error['input'])}; put it in quotes"
    value = error["input"]
    words = [expectation(each) for each in errors]
    return f"expected {either(words)}, got {show(value)}{meant or _hint(value, words, errors)}"


def _hint(value: Any, words: Sequence[str], errors: list[ErrorDetails]) -> str:
    """Return what to write instead of a value, or the nearest right one; empty without an idea."""
    if "a list" in words and isinstance(value, (str, Mapping)):
        return f"; write [{value}]" if isinstance(value, str) and len(value) < 80 else "; put it in a list"
    if "a whole number" in words and isinstance(value, float) and value.is_integer():
        return f"; write {value:.0f}"
    if not isinstance(value, str):
        return ""
    members = [member for word in words for member in word.replace(" or ", ", ").split(", ")]
    closed = any(each["type"] == "literal_error" for each in errors)
    return (near(value, members) if closed else "") or ("" if "text" in words else quote_hint(value))


def keys(model: type[BaseModel]) -> list[str]:
    """Return a section's keys as written in a study file."""
    return [field.alias or name for name, field in model.model_fields.items()]


def describe(model: type[BaseModel], key: str) -> str:
    """Return the first sentence of a key's docstring, for use in brackets."""
    for name, field in model.model_fields.items():
        if key in (name, field.alias) and field.description:
            first = " ".join(field.description.split()).split(". ")[0].split(" (")[0].removesuffix(".")
            return (first[0].lower() + first[1:]).replace("``", "")
    return ""


def section(model: type[BaseModel] | None, loc: Sequence[str | int]) -> type[BaseModel] | None:
    """Return the class of the section at a location in ``model``, through lists and optional sections; None without one."""
    for part in loc:
        if model is None or isinstance(part, int):
            continue
        annotation = next((f.annotation for name, f in model.model_fields.items() if part in (name, f.alias)), None)
        model = next(_classes(annotation), None)
    return model


def _classes(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _classes(argument)
