"""The tables of samplers and pruners: everything that names one reads them."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from sweepkit.study.errors import InputError
from sweepkit.study.samplers import PRUNERS, SAMPLERS, Pruner, list_names, make_pruner
from sweepkit.study.study import PrunerSpec, SamplerSpec


def test_every_class_of_the_tables_exists_and_takes_a_seed() -> None:
    for name, row in SAMPLERS.items():
        if row.source is not None:
            assert type(row.make({}, seed=0)) is row.cls(), name
    needed = {"threshold": {"lower": 0}, "percentile": {"percentile": 50}, "patient": {"patience": 1}}
    for name, pruner in PRUNERS.items():
        assert type(make_pruner(pruner, needed.get(name, {}))) is pruner.cls(), name


def test_a_wrapped_pruner_is_made_from_its_name_or_its_section() -> None:
    from optuna.pruners import MedianPruner

    for inner in ("median", {"type": "median", "n_startup_trials": 7}):
        made = make_pruner(PRUNERS["patient"], {"patience": 1, "wrapped_pruner": inner})
        assert isinstance(vars(made)["_wrapped_pruner"], MedianPruner)
    with pytest.raises(InputError, match=r"pruner PatientPruner: .*patience"):
        make_pruner(PRUNERS["patient"], {"patience": -1, "wrapped_pruner": None})


def test_a_population_stops_no_trial_whatever_its_options() -> None:
    assert make_pruner(PRUNERS["pbt"], {"perturbation_interval": 2}).__class__.__name__ == "NopPruner"


def test_advice_names_the_evaluation_that_must_be_passed() -> None:
    assert PRUNERS["asha"].later(3) == "pruner: {min_resource: 4} or a smaller reduction_factor"
    assert Pruner("optuna.pruners:NopPruner").later(3) == ""


def test_the_study_file_s_reference_lists_both_tables() -> None:
    for spec, table in ((SamplerSpec, SAMPLERS), (PrunerSpec, PRUNERS)):
        assert list_names(table) in str(spec.model_fields["type"].description)


@pytest.mark.real
def test_a_new_sampler_is_one_line() -> None:
    program = """
        from sweepkit.study import samplers

        samplers.SAMPLERS["bruteforce"] = samplers.Sampler("optuna.samplers:BruteForceSampler")

        import optuna
        from sweepkit.check.reference import explain
        from sweepkit.check.schema import schema
        from sweepkit.check import find_problems
        from sweepkit.search.proposer import Proposer
        from sweepkit.search.search import Search
        from sweepkit.study.study import StudyData

        def study(**sampler):
            return StudyData.model_validate({
                "name": "s", "task": {"type": "text-classification", "data": {"name": "d"}},
                "objective": {"metric": "eval_loss", "direction": "minimize"}, "budget": {"trials": 50},
                "sampler": {"type": "bruteforce", **sampler}, "duplicates": "train",
                "space": {"num_train_epochs": {"low": 1, "high": 3}, "optim": {"choices": ["adamw_torch", "sgd"]}},
            })

        assert "bruteforce" in schema()["$defs"]["SamplerSpec"]["properties"]["type"]["enum"]
        assert "bruteforce" in explain()
        paths = {p.path for p in find_problems(study(avoid_premature_stop=True, nonsense=1)) if p.path.startswith("sampler")}
        assert paths == {"sampler.nonsense"}, paths
        search = Search(study(), optuna.storages.InMemoryStorage(), Proposer(study(), {}))
        asked = [search.ask() for _ in range(6)]
        assert len({str(a.params) for a in asked}) == 6
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
