"""A W&B parameter's distribution in our words: the same values, or the nearest we have and what is lost. Knows no names.

What each distribution draws is said in W&B's reference of sweep configurations; those without ``values`` in their name
take the exponents of e as ``min`` and ``max``, and the ``q`` ones round to multiples of ``q``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from sweepkit.study.errors import nearest
from sweepkit.study.parameters import Choice, Float, Int

_ENDS: tuple[tuple[str, ...], Mapping[str, float]] = (("min", "max"), {})
_Q_ENDS: tuple[tuple[str, ...], Mapping[str, float]] = (("min", "max"), {"q": 1.0})
_BELL: tuple[tuple[str, ...], Mapping[str, float]] = ((), {"mu": 0.0, "sigma": 1.0})
_Q_BELL: tuple[tuple[str, ...], Mapping[str, float]] = ((), {"mu": 0.0, "sigma": 1.0, "q": 1.0})
DISTRIBUTIONS: Mapping[str, tuple[tuple[str, ...], Mapping[str, float]]] = MappingProxyType(
    {
        "constant": (("value",), {}),
        "categorical": (("values",), {}),
        "categorical_w_probabilities": (("values", "probabilities"), {}),
        "int_uniform": _ENDS,
        "uniform": _ENDS,
        "q_uniform": _Q_ENDS,
        "log_uniform": _ENDS,
        "log_uniform_values": _ENDS,
        "q_log_uniform": _Q_ENDS,
        "q_log_uniform_values": _Q_ENDS,
        "inv_log_uniform": _ENDS,
        "inv_log_uniform_values": _ENDS,
        "normal": _BELL,
        "q_normal": _Q_BELL,
        "log_normal": _BELL,
        "q_log_normal": _Q_BELL,
        "beta": ((), {"a": 1.0, "b": 1.0}),
        "q_beta": ((), {"a": 1.0, "b": 1.0, "q": 1.0}),
    }
)
"""W&B's distribution → the keys it needs, and those it has defaults for."""


@dataclass(frozen=True)
class Fixed:
    """One value for every trial."""

    value: Any


@dataclass(frozen=True)
class Multiples:
    """``q`` times a whole number that is uniform in its logarithm: Optuna has no steps on a log scale."""

    q: float
    count: Int


@dataclass(frozen=True)
class Drawn:
    """What a parameter becomes; ``notes`` say what is worth knowing, ``warnings`` what is not as it was."""

    domain: Fixed | Float | Int | Choice | Multiples
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def drawn(given: Mapping[str, Any]) -> Drawn:
    """Return a parameter in our words. Raises ValueError for what W&B would refuse too."""
    name = given["distribution"] if "distribution" in given else _inferred(given)
    if name not in DISTRIBUTIONS:
        raise ValueError(f"there is no distribution {name}{nearest(str(name), DISTRIBUTIONS)}")
    needed, optional = DISTRIBUTIONS[name]
    missing = [key for key in needed if key not in given]
    foreign = [key for key in given if key not in (*needed, *optional, "distribution")]
    if missing or foreign:
        found = f"needs {' and '.join(missing)}" if missing else f"has no {' and '.join(map(str, foreign))}"
        raise ValueError(f"{name} {found}; it takes {', '.join((*needed, *optional))}")
    numbers = {**optional, **{key: value for key, value in given.items() if key in ("min", "max", *optional)}}
    for key, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"{key} must be a finite number, got {value!r}")
    try:
        return _listed(name, given) if name in ("constant", *_LISTS) else _numeric(name, numbers)
    except ValidationError as error:
        raise ValueError(str(error.errors()[0]["msg"]).removeprefix("Value error, ")) from None
    except OverflowError:
        raise ValueError(f"{name} takes exponents of e, and e to these is no finite number") from None


_LISTS = ("categorical", "categorical_w_probabilities")


def _inferred(given: Mapping[str, Any]) -> str:
    """The distribution W&B takes where none is named."""
    if "value" in given:
        return "constant"
    if "values" in given:
        return "categorical_w_probabilities" if "probabilities" in given else "categorical"
    if "min" in given and "max" in given:
        whole = all(isinstance(given[end], int) for end in ("min", "max"))
        return "int_uniform" if whole else "uniform"
    raise ValueError("says neither value, values, min and max, nor a distribution")


def _listed(name: str, given: Mapping[str, Any]) -> Drawn:
    if name == "constant":
        return Drawn(Fixed(given["value"]))
    values, warnings = given["values"], []
    if not isinstance(values, list) or not values:
        raise ValueError(f"values must be a list of at least one value, got {values!r}")
    if name == "categorical_w_probabilities":
        odds = given["probabilities"]
        if not isinstance(odds, list) or len(odds) != len(values):
            raise ValueError(f"probabilities must be a list of {len(values)} numbers, one for each value, got {odds!r}")
        values = [value for value, chance in zip(values, odds, strict=True) if chance]
        if len({chance for chance in odds if chance}) > 1:
            warnings.append(f"the probabilities {odds} have no equal; all values are equally likely")
        if len(values) < len(odds):
            warnings.append("values of probability 0 are left out")
    once: list[Any] = []
    for value in values:
        if value not in once:
            once.append(value)
    if len(once) < len(values):
        warnings.append("a value is written twice, which made it twice as likely; every value is there once")
    return Drawn(Fixed(once[0]) if len(once) == 1 else Choice(choices=once), (), tuple(warnings))


def _numeric(name: str, number: Mapping[str, float]) -> Drawn:
    if "q" in number and number["q"] <= 0:
        raise ValueError(f"q must be above 0, got {number['q']}")
    if "min" in number and number["min"] > number["max"]:
        raise ValueError(f"min must not be above max, got min={number['min']} and max={number['max']}")
    if number.get("sigma", 0) < 0:
        raise ValueError(f"sigma must not be below 0, got {number['sigma']}")
    low, high, notes, warnings = _ends(name, number)
    logarithmic = "log" in name
    if "q" not in number:
        if name == "int_uniform":
            if not (isinstance(low, int) and isinstance(high, int)):
                raise ValueError(f"int_uniform needs whole numbers, got min={low} and max={high}")
            # The step is said, so that a field of real numbers gets whole ones too.
            return Drawn(Fixed(low) if low == high else Int(low=low, high=high, step=1))
        domain: Any = Float(low=float(low), high=float(high), log=logarithmic) if low < high else Fixed(float(low))
        return Drawn(domain, notes, warnings)
    q = number["q"]
    first, last = round(low / q), round(high / q)
    if logarithmic and first < 1 <= last:
        first, warnings = 1, (*warnings, f"0 could be drawn, which no log scale has; it begins at {q}")
    if first == last:
        return Drawn(Fixed(_times(first, q)), notes, warnings)
    if logarithmic:
        return Drawn(Multiples(q, Int(low=first, high=last, log=True)), notes, warnings)
    if "uniform" in name and (first * q >= low or last * q <= high):
        notes = (*notes, "rounding made the first and the last value less likely; all are equally likely")
    start, end = _times(first, q), _times(last, q)
    if isinstance(q, int):
        return Drawn(Int(low=int(start), high=int(end), step=q), notes, warnings)
    return Drawn(Float(low=start, high=end, step=q), notes, warnings)


def _ends(name: str, number: Mapping[str, float]) -> tuple[float, float, tuple[str, ...], tuple[str, ...]]:
    """Smallest and largest value before rounding, and what there is to say of it."""
    if name.endswith("beta"):
        a, b = number["a"], number["b"]
        lost = f"beta(a={a:g}, b={b:g}) has no equal; drawn uniformly from 0 to 1"
        return 0.0, 1.0, (), () if a == b == 1 else (lost,)
    if name.endswith("normal"):
        mu, spread = Decimal(repr(number["mu"])), 2 * Decimal(repr(number["sigma"]))
        low, high = float(mu - spread), float(mu + spread)
        scale = ""
        if "log" in name:
            low, high, scale = math.exp(low), math.exp(high), " in the logarithm"
        shape = f"{name}(mu={number['mu']:g}, sigma={number['sigma']:g})"
        lost = f"{shape} has no equal; drawn uniformly{scale} from {low:.6g} to {high:.6g}, its middle 95 %"
        return low, high, (), (lost,) if spread else ()
    low, high = number["min"], number["max"]
    if name.endswith("log_uniform"):
        low, high = (-high, -low) if name.startswith("inv") else (low, high)
        low, high = math.exp(low), math.exp(high)
        said = f"min and max are exponents of e: searched from {low:.6g} to {high:.6g}"
        return low, high, (said,), ()
    if "log" in name and low <= 0:
        raise ValueError(f"{name} needs min above 0, got {low}")
    return low, high, (), ()


def _times(count: int, q: float) -> float:
    """``count * q`` as one would write it: 3 times 0.1 is 0.3."""
    return count * q if isinstance(q, int) else float(Decimal(repr(q)) * count)
