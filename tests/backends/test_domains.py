"""Ray Tune's distributions in our words."""

from __future__ import annotations

from typing import Any

import pytest

from sweepkit.study.errors import InputError
from sweepkit.study.parameters import Choice, Float, Int

pytest.importorskip("ray", reason="Ray Tune is missing; pip install 'sweepkit[ray]'")

from ray import tune

from sweepkit.backends.ray.domains import parameter


@pytest.mark.parametrize(
    ("domain", "ours"),
    [
        (tune.uniform(0.0, 1.0), Float(low=0.0, high=1.0)),
        (tune.loguniform(1e-5, 1e-1), Float(low=1e-5, high=1e-1, log=True)),
        (tune.quniform(0.0, 1.0, 0.25), Float(low=0.0, high=1.0, step=0.25)),
        (tune.randint(1, 10), Int(low=1, high=9)),
        (tune.qrandint(2, 10, 2), Int(low=2, high=10, step=2)),
        (tune.lograndint(1, 100), Int(low=1, high=99, log=True)),
        (tune.choice([4, 8]), Choice(choices=[4, 8])),
        (3, Choice(choices=[3])),
        (tune.randint(5, 6), Choice(choices=[5])),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_distribution_has_its_parameter(domain: Any, ours: Any) -> None:
    assert parameter("x", domain) == ours


def test_a_range_for_a_whole_number_is_one_of_whole_numbers() -> None:
    assert parameter("seed", tune.uniform(1, 40), whole=True) == Int(low=1, high=39)


@pytest.mark.parametrize(
    ("domain", "said"),
    [
        (tune.randn(), "randn cannot be searched; use uniform over"),
        (tune.qloguniform(1e-2, 1.0, 1e-2), r"in steps \(qloguniform, qlograndint\) cannot be searched; use choice"),
        (tune.sample_from(lambda _: 1), r"sample_from cannot be searched; use suggest_\*"),
        (tune.grid_search([1, 2]), "grid_search cannot be searched; use choice"),
        ({"inner": tune.uniform(0, 1)}, "a distribution inside of a value cannot be searched; use choice"),
        (object(), "must be plain data"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_its_name_with_what_to_use(domain: Any, said: str) -> None:
    with pytest.raises(InputError, match=f"hp_space: x: .*{said}"):
        parameter("x", domain)
