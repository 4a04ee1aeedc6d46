"""What runs out of memory teaches the sampler where not to look: the real search over simulated trials."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest

from making import toy_study
from sweepkit.search.proposer import Proposer
from sweepkit.search.search import Search
from sweepkit.trial.events import Evaluated, Finished
from sweepkit.trial.trial import Ending

pytestmark = pytest.mark.real


TRIALS, LAST, SEEDS = 60, 30, 6
LARGEST_BATCH = 32
"""Half of the choices do not fit: a sampler that learnt nothing would draw 15 such trials among the last 30."""


def value(params: Mapping[str, Any]) -> float:
    """Bigger batches are better, so that the limit is where a sampler wants to go."""
    distance = math.log10(params["learning_rate"]) + 3.0
    return 1.0 - 0.2 * distance**2 + 0.1 * math.log2(params["per_device_train_batch_size"])


def infeasible_among_the_last(project: Path, sampler: str, seed: int) -> int:
    """Run a study whose trials are over as soon as they are asked for; batches above the limit do not fit."""
    study = toy_study(
        project,
        name=f"{sampler}-{seed}",
        space={
            "learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
            "per_device_train_batch_size": {"choices": [8, 16, 32, 64, 128, 256]},
            "weight_decay": {"low": 0.0, "high": 0.3},
        },
        sampler={"type": sampler, "seed": seed},
        budget={"trials": TRIALS},
    )
    search = Search(study, optuna.storages.InMemoryStorage(), Proposer(study, {}))
    while (asked := search.ask()) is not None:
        if asked.params["per_device_train_batch_size"] > LARGEST_BATCH:
            end = Finished(trial=asked.number, at=0.0, ending=Ending.infeasible, cause="out of memory")
        else:
            found = (value(asked.params),)
            metrics = {"eval_score": found[0]}
            search.report(
                Evaluated(trial=asked.number, at=0.0, number=1, step=1, epoch=1.0, metrics=metrics, values=found)
            )
            end = Finished(trial=asked.number, at=0.0, ending=Ending.complete, values=found)
        search.tell(end)
    return sum(row.ending is Ending.infeasible for row in search.trials()[-LAST:])


@pytest.mark.parametrize("sampler", ["tpe", pytest.param("gp", marks=pytest.mark.slow)])
def test_few_of_the_last_trials_do_not_fit(project: Path, sampler: str) -> None:
    counts = [infeasible_among_the_last(project, sampler, seed) for seed in range(SEEDS)]
    assert statistics.mean(counts) <= 10, counts
