"""Names of hyperparameters as paths: a consumer's field, or a key inside a field that holds a mapping.

``lr_scheduler_kwargs.min_lr_rate`` is the key ``min_lr_rate`` of the training argument ``lr_scheduler_kwargs``, and
``model.rope_parameters.factor`` a key of a field of the model's configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

NAMESPACES = ("model", "peft", "task")
"""Prefixes of names; a name without one is a training argument."""
UNSET = object()
"""Stands for a name without a value."""


def parts(name: str) -> tuple[str, list[str]]:
    """Return a name's namespace, empty for training arguments, and its keys from the field inwards.

    Below a field of ``peft`` the rest is one key, as LoraConfig's patterns have names of layers for keys.

    >>> parts("model.rope_parameters.factor"), parts("peft.rank_pattern.encoder.layer.0")
    (('model', ['rope_parameters', 'factor']), ('peft', ['rank_pattern', 'encoder.layer.0']))
    """
    head, dot, rest = name.partition(".")
    namespace = head if dot and head in NAMESPACES else ""
    return namespace, (rest if namespace else name).split(".", 1 if namespace == "peft" else -1)


def keys_of(name: str) -> list[str]:
    """Return every key of a name, its namespace first.

    >>> keys_of("model.rope_parameters.factor")
    ['model', 'rope_parameters', 'factor']
    """
    namespace, keys = parts(name)
    return [namespace, *keys] if namespace else keys


def field_of(name: str) -> str:
    """Return the name of the field that holds a name's value.

    >>> field_of("lr_scheduler_kwargs.min_lr_rate"), field_of("model.rope_parameters.factor"), field_of("optim")
    ('lr_scheduler_kwargs', 'model.rope_parameters', 'optim')
    """
    return ".".join(keys_of(name)[: 2 if parts(name)[0] else 1])


def is_inside(name: str, other: str) -> bool:
    """Whether a name is a key somewhere inside another one's value."""
    return name.startswith(f"{other}.")


def find(values: Mapping[str, Any], name: str) -> Any:
    """Return a name's value, also from inside the mapping of another name; UNSET without one.

    >>> find({"lr_scheduler_kwargs": {"num_cycles": 2}}, "lr_scheduler_kwargs.num_cycles")
    2
    """
    if name in values:
        return values[name]
    keys = keys_of(name)
    for length in range(len(keys) - 1, 0, -1):
        node = values.get(".".join(keys[:length]), UNSET)
        for key in keys[length:] if node is not UNSET else ():
            node = node.get(key, UNSET) if isinstance(node, Mapping) else UNSET
        if node is not UNSET:
            return node
    return UNSET


def inner_names(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of the keys inside the mappings among these values."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            inside = {f"{name}.{key}": inner for key, inner in value.items()}
            yield from inside
            yield from inner_names(inside)


def with_key(mapping: Any, keys: Sequence[str], value: Any) -> dict[str, Any]:
    """Return a copy of the mapping with the value at these keys; whatever is not a mapping is replaced by one.

    >>> with_key({"a": {"b": 1}, "c": 2}, ["a", "d"], 3)
    {'a': {'b': 1, 'd': 3}, 'c': 2}
    """
    result = dict(mapping) if isinstance(mapping, Mapping) else {}
    key, *inside = keys
    result[key] = with_key(result.get(key), inside, value) if inside else value
    return result


def nest(values: Mapping[str, Any], base: Callable[[str], Any] = lambda _: None) -> dict[str, Any]:
    """Return values by field, each dotted name put into its field's mapping, whose other keys stay.

    A field that is not among the values starts from ``base(field)``.

    >>> nest({"a.b": 1, "c": 2, "a": {"d": 3}}), nest({"a.b": 1}, {"a": {"d": 3}}.get)
    ({'c': 2, 'a': {'d': 3, 'b': 1}}, {'a': {'d': 3, 'b': 1}})
    """
    result: dict[str, Any] = {}
    for name in sorted(values, key=depth):
        field, *inside = name.split(".")
        result[field] = with_key(result.get(field, base(field)), inside, values[name]) if inside else values[name]
    return result


def depth(name: str) -> int:
    """Return a sort key that puts a mapping's own name before the names of its keys."""
    return name.count(".")
