"""The options of samplers and pruners: Optuna's, read from their signatures, and Tune's. Knows no study, imports neither."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from types import MappingProxyType

from sweepkit.check.fields.classes import Field, read_signature
from sweepkit.check.fields.modules import kept, parse
from sweepkit.study import samplers
from sweepkit.tasks.references import package_folder

SAMPLERS: Mapping[str, str] = {
    name: row.source.partition(":")[2] for name, row in samplers.SAMPLERS.items() if row.source is not None
}
PRUNERS: Mapping[str, str] = {
    name: row.source.partition(":")[2]
    for name, row in samplers.PRUNERS.items()
    if name != "none" and not row.population
}
_NUMBER = frozenset({"int", "float"})
POPULATIONS: Mapping[str, Mapping[str, Field]] = MappingProxyType(
    {  # of Ray Tune's schedulers, where they have to do with evaluations: known also where ray is not installed
        "pbt": {
            "perturbation_interval": Field("perturbation_interval", frozenset({"int"}), 1),
            "burn_in_period": Field("burn_in_period", frozenset({"int"}), 0),
            "quantile_fraction": Field("quantile_fraction", _NUMBER, 0.25),
            "resample_probability": Field("resample_probability", _NUMBER, 0.25),
            "perturbation_factors": Field("perturbation_factors", frozenset({"list"}), [1.2, 0.8]),
        },
        "pb2": {
            "perturbation_interval": Field("perturbation_interval", frozenset({"int"}), 1),
            "quantile_fraction": Field("quantile_fraction", _NUMBER, 0.25),
        },
    }
)
_SET_BY_SWEEPKIT = frozenset({"seed", "search_space", "constraints_func", "source_trials", "independent_sampler"})
_WITHOUT_EFFECT = frozenset({"restart_strategy", "inc_popsize"})  # optuna 5: CmaEsSampler warns and goes on without
_TEXTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"min_resource": ("auto",), "max_resource": ("auto",), "qmc_type": ("sobol", "halton")}
)


@kept
def sampler_options(kind: str) -> Mapping[str, Field]:
    """Return the options of a sampler that a study file can write."""
    return _options("samplers", SAMPLERS[kind]) if kind in SAMPLERS else {}


@kept
def pruner_options(kind: str) -> Mapping[str, Field]:
    """Return the options of a pruner that a study file can write."""
    if kind in POPULATIONS:
        return POPULATIONS[kind]
    if kind in PRUNERS and (wraps := samplers.PRUNERS[kind].wraps):
        inner = Field(wraps, frozenset({"dict", "str", "none"}), None)
        return {**_options("pruners", PRUNERS[kind]), wraps: inner}
    return _options("pruners", PRUNERS[kind]) if kind in PRUNERS else {}


def _options(folder: str, class_name: str) -> dict[str, Field]:
    package = package_folder("optuna")
    if package is None:
        return {}
    listing = package / folder / "__init__.py"
    for node in parse(listing).body:
        if isinstance(node, ast.ImportFrom) and any(alias.name == class_name for alias in node.names):
            path = package.parent.joinpath(*(node.module or "").split("."))
            file = next((f for f in (path.with_suffix(".py"), path / "__init__.py") if f.is_file()), listing)
            fields = read_signature(file, class_name)
            return {
                name: Field(name, field.kinds, field.default, _TEXTS.get(name, field.choices), required=field.required)
                for name, field in fields.items()
                if name not in _SET_BY_SWEEPKIT | _WITHOUT_EFFECT and field.kinds - {"none"}
            }
    return {}
