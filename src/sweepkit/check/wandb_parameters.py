"""Converts a parameter of a W&B sweep: its name to the name of what consumes it, its distribution to a domain.

The distributions are those of W&B's sweep configuration reference. Those without ``values`` in their name take exponents
of e as ``min`` and ``max``; the ``q`` ones round to multiples of ``q``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import ValidationError

from sweepkit.check import Consumers
from sweepkit.check.fields.arguments import SHORTHANDS, what_became_of
from sweepkit.study.errors import nearest
from sweepkit.study.parameters import Choice, Float, Int
from sweepkit.tasks.arguments import why_owned

_NAMESPACES: Mapping[str, str] = MappingProxyType(
    {
        "model": "model",
        "model_config": "model",
        "config": "model",
        "peft": "peft",
        "lora": "peft",
        "lora_config": "peft",
        "task": "task",
        "data": "task",
    }
)
_NAMES: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("learn_rate", "learningrate", "base_lr", "init_lr", "initial_lr"), "learning_rate"),
        **dict.fromkeys(("bs", "bsz", "batch", "batchsize", "train_bs"), "per_device_train_batch_size"),
        **dict.fromkeys(("num_epoch", "n_epoch", "nb_epochs", "max_epochs", "train_epochs"), "num_train_epochs"),
        **dict.fromkeys(("weightdecay", "l2"), "weight_decay"),
        **dict.fromkeys(("warmup_proportion", "warmup_fraction", "num_warmup_steps"), "warmup_steps"),
        **dict.fromkeys(("clip_norm", "gradient_clip_val", "gradient_clipping"), "max_grad_norm"),
        **dict.fromkeys(("grad_accum", "gradient_accumulation"), "gradient_accumulation_steps"),
        **dict.fromkeys(("max_len", "maxlen", "seq_len", "seq_length", "sequence_length"), "task.max_length"),
        **dict.fromkeys(("backbone", "base_model", "model_checkpoint", "pretrained_model"), "task.model"),
        **SHORTHANDS,
    }
)
"""Names in training scripts → names in a study."""
_ARGUMENTS = (
    *("training", "training_args", "training_arguments", "trainer", "train", "args", "optimizer", "optim"),
    *("hyperparameters", "hyperparams", "hparams", "params", "hp"),
)


def find_name(written: str, consumers: Consumers) -> tuple[str | None, str]:
    """Return (name in a study, "") for a dotted W&B name, or (None, why nothing consumes it)."""
    if written.replace("-", "_") not in consumers.names():
        written = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", written).replace("/", ".").replace(" ", "_").lower()
    head, dot, rest = written.replace("-", "_").partition(".")
    if dot and head in _NAMESPACES:
        return _consumed(_NAMES.get(f"{head}_{rest}", f"{_NAMESPACES[head]}.{rest}"), consumers)
    leaf = rest if dot and head in _ARGUMENTS else written.replace("-", "_")
    if "." in leaf:
        return _consumed(leaf, consumers)
    name, why = _consumed(leaf, consumers)
    if name is None and leaf in _NAMES:
        name, why = _consumed(_NAMES[leaf], consumers)
    if name is None and not what_became_of(leaf) and why_owned(leaf) is None:
        elsewhere = [full for full in consumers.names() if full.partition(".")[2] == leaf]
        return (elsewhere[0], "") if elsewhere else (None, why)
    return name, why


def _consumed(name: str, consumers: Consumers) -> tuple[str | None, str]:
    if name.startswith("peft.") and consumers.adapters is None:
        return name, ""  # the check names the missing extra
    field, why = consumers.resolve(name)
    return (name, "") if field is not None else (None, why)


_ENDS, _BELL, _BETA, _STEP = ("min", "max"), {"mu": 0.0, "sigma": 1.0}, {"a": 1.0, "b": 1.0}, {"q": 1.0}
_RANGES = ("uniform", "log_uniform", "log_uniform_values")
DISTRIBUTIONS: Mapping[str, tuple[tuple[str, ...], Mapping[str, float]]] = MappingProxyType(
    {
        "constant": (("value",), {}),
        "categorical": (("values",), {}),
        "categorical_w_probabilities": (("values", "probabilities"), {}),
        **dict.fromkeys(("int_uniform", *_RANGES, "inv_log_uniform", "inv_log_uniform_values"), (_ENDS, {})),
        **{f"q_{name}": (_ENDS, _STEP) for name in _RANGES},
        **dict.fromkeys(("normal", "log_normal"), ((), _BELL)),
        **dict.fromkeys(("q_normal", "q_log_normal"), ((), {**_BELL, **_STEP})),
        "beta": ((), _BETA),
        "q_beta": ((), {**_BETA, **_STEP}),
    }
)
"""Distribution → (keys it requires, defaults of its other keys)."""


@dataclass(frozen=True)
class Fixed:
    """One value for every trial."""

    value: Any


@dataclass(frozen=True)
class Multiples:
    """``q`` times a log-uniform whole number: Optuna has no steps on a log scale."""

    q: float
    count: Int


Domain = Fixed | Float | Int | Choice | Multiples


@dataclass(frozen=True)
class Converted:
    """A parameter's domain; ``notes`` say what is written differently, ``warnings`` what is not the same."""

    domain: Domain
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def convert(given: Mapping[str, Any]) -> Converted:
    """Return the domain of a W&B parameter. Raises ValueError for what W&B would refuse too."""
    name = given["distribution"] if "distribution" in given else _infer(given)
    if name not in DISTRIBUTIONS:
        raise ValueError(f"there is no distribution {name}{nearest(str(name), DISTRIBUTIONS)}")
    required, defaults = DISTRIBUTIONS[name]
    missing = [key for key in required if key not in given]
    unknown = [key for key in given if key not in (*required, *defaults, "distribution")]
    if missing or unknown:
        found = f"needs {' and '.join(missing)}" if missing else f"has no {' and '.join(map(str, unknown))}"
        raise ValueError(f"{name} {found}; it takes {', '.join((*required, *defaults))}")
    numbers = {**defaults, **{key: value for key, value in given.items() if key in ("min", "max", *defaults)}}
    for key, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{key} must be a finite number, got {value!r}")
    try:
        if name == "constant":
            return Converted(Fixed(given["value"]))
        return _list(name, given) if name.startswith("categorical") else _range(name, numbers)
    except ValidationError as error:
        raise ValueError(str(error.errors()[0]["msg"]).removeprefix("Value error, ")) from None
    except OverflowError:
        raise ValueError(f"{name} takes exponents of e, and e to the power of these is not a finite number") from None


def _infer(given: Mapping[str, Any]) -> str:
    """Return the distribution that W&B assumes where none is named."""
    if "value" in given:
        return "constant"
    if "values" in given:
        return "categorical_w_probabilities" if "probabilities" in given else "categorical"
    if "min" in given and "max" in given:
        whole = all(isinstance(given[end], int) for end in ("min", "max"))
        return "int_uniform" if whole else "uniform"
    raise ValueError("needs value, values, min and max, or a distribution")


def _list(name: str, given: Mapping[str, Any]) -> Converted:
    values, warnings = given["values"], []
    if not isinstance(values, list) or not values:
        raise ValueError(f"values must be a list of at least one value, got {values!r}")
    if name == "categorical_w_probabilities":
        odds = given["probabilities"]
        if not isinstance(odds, list) or len(odds) != len(values):
            raise ValueError(f"probabilities must be a list of {len(values)} numbers, one per value, got {odds!r}")
        values = [value for value, chance in zip(values, odds, strict=True) if chance]
        if len({chance for chance in odds if chance}) > 1:
            warnings.append(f"the probabilities {odds} have no equivalent; all values are equally likely")
        if len(values) < len(odds):
            warnings.append("values of probability 0 are left out")
    unique = [value for index, value in enumerate(values) if value not in values[:index]]
    if len(unique) < len(values):
        warnings.append("a repeated value is twice as likely in W&B; here all values are equally likely")
    return Converted(Fixed(unique[0]) if len(unique) == 1 else Choice(choices=unique), (), tuple(warnings))


def _range(name: str, number: Mapping[str, float]) -> Converted:
    if number.get("q", 1) <= 0:
        raise ValueError(f"q must be above 0, got {number['q']}")
    if "min" in number and number["min"] > number["max"]:
        raise ValueError(f"min must not be above max, got min={number['min']} and max={number['max']}")
    if number.get("sigma", 0) < 0:
        raise ValueError(f"sigma must not be below 0, got {number['sigma']}")
    bounds = _bounds(name, number)
    low, high, notes, warnings = bounds
    if "q" in number:
        return _quantized(name, number["q"], bounds)
    if name == "int_uniform":
        if not (isinstance(low, int) and isinstance(high, int)):
            raise ValueError(f"int_uniform needs whole numbers, got min={low} and max={high}")
        # An explicit step keeps the values whole for a field of real numbers too.
        return Converted(Fixed(low) if low == high else Int(low=low, high=high, step=1))
    if low == high:
        return Converted(Fixed(float(low)), notes, warnings)
    return Converted(Float(low=float(low), high=float(high), log="log" in name), notes, warnings)


def _quantized(name: str, q: float, bounds: _Bounds) -> Converted:
    """Return the multiples of ``q`` between two bounds."""
    low, high, notes, warnings = bounds
    first, last = round(low / q), round(high / q)
    if "log" in name and first < 1 <= last:
        first, warnings = 1, (*warnings, f"W&B could draw 0, which a log scale cannot; the range starts at {q}")
    if first == last:
        return Converted(Fixed(_multiple(first, q)), notes, warnings)
    if "log" in name:
        return Converted(Multiples(q, Int(low=first, high=last, log=True)), notes, warnings)
    if "uniform" in name and (first * q >= low or last * q <= high):
        notes = (*notes, "W&B's rounding makes the first and last value less likely; here all are equally likely")
    start, end = _multiple(first, q), _multiple(last, q)
    if isinstance(q, int):
        return Converted(Int(low=int(start), high=int(end), step=q), notes, warnings)
    return Converted(Float(low=start, high=end, step=q), notes, warnings)


class _Bounds(NamedTuple):
    """Smallest and largest value before rounding."""

    low: float
    high: float
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def _bounds(name: str, number: Mapping[str, float]) -> _Bounds:
    if name.endswith("beta"):
        a, b = number["a"], number["b"]
        lost = f"beta(a={a:g}, b={b:g}) has no equivalent; sampled uniformly from 0 to 1"
        return _Bounds(0.0, 1.0, warnings=() if a == b == 1 else (lost,))
    if name.endswith("normal"):
        mu, spread = Decimal(repr(number["mu"])), 2 * Decimal(repr(number["sigma"]))
        low, high = float(mu - spread), float(mu + spread)
        scale = ""
        if "log" in name:
            low, high, scale = math.exp(low), math.exp(high), " on a log scale"
        shape = f"{name}(mu={number['mu']:g}, sigma={number['sigma']:g})"
        lost = f"{shape} has no equivalent; sampled uniformly{scale} from {low:.6g} to {high:.6g}, its central 95 %"
        return _Bounds(low, high, warnings=(lost,) if spread else ())
    low, high = number["min"], number["max"]
    if name.endswith("log_uniform"):
        low, high = (-high, -low) if name.startswith("inv") else (low, high)
        low, high = math.exp(low), math.exp(high)
        return _Bounds(low, high, notes=(f"min and max are exponents of e: searched from {low:.6g} to {high:.6g}",))
    if "log" in name and low <= 0:
        raise ValueError(f"{name} needs min above 0, got {low}")
    return _Bounds(low, high)


def _multiple(count: int, q: float) -> float:
    """Return ``count * q`` without a binary rounding error: 3 times 0.1 is 0.3."""
    return count * q if isinstance(q, int) else float(Decimal(repr(q)) * count)
