"""The search by itself: the same sequence wherever it was cut, what is drawn again, and what a value is."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from making import toy_study
from sweepkit.check import known_values
from sweepkit.search.proposer import Proposer
from sweepkit.search.search import Search
from sweepkit.search.storage import open_storage, together
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Evaluated, Finished
from sweepkit.trial.trial import Ending
from toy_tasks import score

TRIALS = 6
SAMPLERS: dict[str, dict[str, Any]] = {
    "random": {},
    "tpe": {"n_startup_trials": 3},
    "gp": {"n_startup_trials": 3},
    "cmaes": {"n_startup_trials": 2},
    "qmc": {"qmc_type": "halton"},
    "grid": {},
    "nsga2": {"population_size": 3},
}
# Six fits of a Gaussian process take ten seconds; one test keeps it among the quick ones.
ALL = [pytest.param(kind, marks=pytest.mark.slow) if kind == "gp" else kind for kind in SAMPLERS]
SPACE = {
    "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "task.x": {"low": 0.0, "high": 1.0},
    "optim": {
        "choices": {"adamw_torch": {"adam_beta2": {"low": 0.9, "high": 0.99}}, "sgd": {}},
    },
}
GRID = {
    "learning_rate": {"choices": [1e-4, 1e-3, 1e-2]},
    "optim": {"choices": {"adamw_torch": {"adam_beta2": {"choices": [0.9, 0.95]}}, "sgd": {}}},
}


def opened(study: StudyData) -> Search:
    """Return the study's search as a new process has it."""
    study.place.folder.mkdir(parents=True, exist_ok=True)
    return Search(study, open_storage(study.place, study, repair=True), Proposer(study, known_values(study)))


def one(search: Search) -> dict[str, Any] | None:
    """Run one trial to its end; return its hyperparameters, or None when there is none."""
    asked = search.ask()
    if asked is None:
        return None
    hp = asked.params
    value = score(hp["learning_rate"], hp.get("task.x", 0.5)) - (0.1 if hp.get("optim") == "sgd" else 0.0)
    search.report(Evaluated(trial=asked.number, at=0, number=1, step=1, epoch=1, metrics={}, values=(value,)))
    search.tell(Finished(trial=asked.number, at=0, ending="complete", values=(value,)))
    return dict(hp)


def sequence(search: Search) -> list[dict[str, Any]]:
    """Run the search to its end."""
    found = []
    while (configuration := one(search)) is not None:
        found.append(configuration)
    return found


def study_of(project: Path, kind: str, name: str, **keys: Any) -> StudyData:
    space = GRID if kind == "grid" else SPACE
    sampler = {"type": kind, "seed": 5, **SAMPLERS[kind]}
    return toy_study(
        project, **{"name": name, "space": space, "sampler": sampler, "budget": {"trials": TRIALS}, **keys}
    )


@pytest.mark.parametrize("kind", ALL)
def test_a_search_opened_anew_before_every_trial_gives_the_same_sequence(project: Path, kind: str) -> None:
    straight = sequence(opened(study_of(project, kind, "straight")))
    cut = study_of(project, kind, "cut")
    again = []
    while (configuration := one(opened(cut))) is not None:
        again.append(configuration)
    assert len(straight) == TRIALS
    assert again == straight


@pytest.mark.parametrize("kind", ALL)
def test_a_driver_killed_between_asking_and_telling_leaves_one_trial_to_go_on_with(project: Path, kind: str) -> None:
    straight = sequence(opened(study_of(project, kind, "straight")))
    cut = study_of(project, kind, "cut")
    search = opened(cut)
    for _ in range(3):
        one(search)
    asked = search.ask()
    assert asked is not None
    (left,) = opened(cut).take_over()
    assert (left.number, dict(left.params)) == (3, straight[3])


def test_another_seed_gives_another_sequence(project: Path) -> None:
    first = sequence(opened(study_of(project, "random", "first")))
    other = sequence(opened(study_of(project, "random", "other", sampler={"type": "random", "seed": 6})))
    assert first != other


@pytest.mark.parametrize("kind", ALL)
def test_a_child_is_proposed_exactly_under_its_parent(project: Path, kind: str) -> None:
    # A fit of a Gaussian process takes a second; the others have enough trials for every branch to come many times.
    trials = {"grid": 9, "gp": 8}.get(kind, 16)
    found = sequence(opened(study_of(project, kind, "toy", budget={"trials": trials})))
    assert len(found) == trials
    assert {hp["optim"] for hp in found} == {"adamw_torch", "sgd"}
    assert [hp for hp in found if ("adam_beta2" in hp) != (hp["optim"] == "adamw_torch")] == []


@pytest.mark.parametrize("kind", ALL)
def test_what_breaks_a_constraint_is_drawn_again_and_costs_no_trial(project: Path, kind: str) -> None:
    space = {
        "learning_rate": {"choices": [1e-4, 1e-3]},
        "per_device_train_batch_size": {"choices": [8, 16, 32]},
        "gradient_accumulation_steps": {"choices": [1, 2, 4]},
    }
    constraint = "per_device_train_batch_size * gradient_accumulation_steps <= 32"
    study = study_of(project, kind, "toy", space=space, constraints=[constraint], budget={"trials": 8})
    found = sequence(opened(study))
    batches = [hp["per_device_train_batch_size"] * hp["gradient_accumulation_steps"] for hp in found]
    assert len(found) == 8 and max(batches) <= 32


@pytest.mark.parametrize("kind", SAMPLERS)
def test_nothing_is_tried_twice_and_a_used_up_space_ends_the_search(project: Path, kind: str) -> None:
    space = {"learning_rate": {"choices": [1e-4, 1e-3, 1e-2]}, "task.x": {"choices": [0.0, 1.0]}}
    search = opened(study_of(project, kind, "toy", space=space, budget={"trials": 50}))
    found = sequence(search)
    assert len(found) == len({tuple(sorted(hp.items())) for hp in found}) == 6
    assert search.exhausted


def test_a_configuration_is_trained_again_where_the_study_asks_for_it(project: Path) -> None:
    space = {"learning_rate": {"choices": [1e-4, 1e-3]}}
    study = study_of(project, "random", "toy", space=space, duplicates="train")
    assert len(sequence(opened(study))) == TRIALS


def test_linked_values_come_together_and_derived_ones_follow(project: Path) -> None:
    space = {
        "learning_rate": {"low": 1e-4, "high": 1e-2},
        "batch": {
            "choices": {
                "small": {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 4},
                "large": {"per_device_train_batch_size": 32},
            }
        },
        "weight_decay": {"expression": "learning_rate / 10"},
    }
    found = sequence(opened(study_of(project, "random", "toy", space=space)))
    linked = {(hp["per_device_train_batch_size"], hp.get("gradient_accumulation_steps")) for hp in found}
    assert linked == {(8, 4), (32, None)}
    assert all(hp["weight_decay"] == hp["learning_rate"] / 10 and "batch" not in hp for hp in found)


def test_a_baseline_of_an_empty_space_is_a_trial_without_hyperparameters(project: Path) -> None:
    search = opened(toy_study(project, name="empty", space={}, baseline={}, budget={"trials": 1}))
    asked = search.ask()
    assert asked is not None
    assert (search.row(asked.number).origin, asked.params) == ("baseline", {})


def test_a_baseline_whose_default_is_no_branch_of_the_choice_is_trained_with_it(project: Path) -> None:
    """The default depends on the version of torch."""
    space = SPACE | {"optim": {"choices": {"adafactor": {"adam_beta2": {"low": 0.9, "high": 0.99}}, "sgd": {}}}}
    study = study_of(project, "random", "toy", space=space, baseline={"learning_rate": 1e-3})
    asked = opened(study).ask()
    assert asked is not None
    assert asked.params == {"learning_rate": 1e-3, "task.x": 0.5, "optim": known_values(study)["optim"]}
    assert asked.params["optim"].startswith("adamw_torch")


def test_another_thread_that_looks_on_changes_nothing(project: Path) -> None:
    search = opened(study_of(project, "random", "watched", budget={"trials": 40}))
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            search.trials()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    looker = threading.Thread(target=look)
    looker.start()
    try:
        sequence(search)
    finally:
        sys.setswitchinterval(before)
        over.set()
        looker.join()
    assert sorted(row.number for row in search.trials()) == list(range(40))


def test_records_written_together_reach_the_journal_at_once_and_in_their_order(project: Path) -> None:
    study = study_of(project, "random", "toy")
    search = opened(study)
    asked = search.ask()
    assert asked is not None
    storage, before = open_storage(study.place, study), study.place.journal.read_bytes()
    with together(storage):
        for name in ("first", "second"):
            storage.set_trial_user_attr(asked.number, name, True)
        assert study.place.journal.read_bytes() == before
    written = study.place.journal.read_bytes().removeprefix(before).splitlines()
    assert [next(iter(json.loads(line)["user_attr"])) for line in written] == ["first", "second"]


def test_a_trial_waits_for_the_disk_once_to_start_to_report_and_to_end(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queued = [{"learning_rate": 1e-3, "task.x": 0.5, "optim": "sgd"}]
    search = opened(
        study_of(project, "random", "waits", enqueue=queued * 2, pruner={"type": "asha", "min_resource": 1})
    )
    one(search)  # which adds what is queued
    waits, fsync = list[int](), os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (waits.append(file), fsync(file)))
    asked = search.ask()
    assert asked is not None and (asked.origin, len(waits)) == ("enqueued", 1)
    search.report(Evaluated(trial=asked.number, at=0, number=1, step=1, epoch=1, metrics={}, values=(0.5,)))
    assert len(waits) == 3  # the evaluation, and what was decided and attached
    search.tell(Finished(trial=asked.number, at=0, ending="complete", values=(0.5,)))
    assert (len(waits), search.row(asked.number).ending) == (4, Ending.complete)
