"""Trackers of ``report_to`` follow each trial under its own run, whatever ends it, and nothing else."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

from making import Kept, spec, toy_study
from sweepkit.trial import reporting
from sweepkit.trial.objective import run_trial

pytestmark = pytest.mark.real


class Heard(TrainerCallback):
    runs: list[dict[str, Any]] = []  # a toy's class variable

    def on_train_begin(self, args: Any, *_: Any, **__: Any) -> None:
        kept = ("WANDB_RUN_GROUP", "WANDB_RUN_ID", "TENSORBOARD_LOGGING_DIR")
        self.runs.append({"name": args.run_name, "losses": 0, "ends": 0, **{key: os.environ[key] for key in kept}})

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        self.runs[-1]["losses"] += "eval_loss" in logs

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.runs[-1]["ends"] += 1


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    Heard.runs = []
    monkeypatch.setattr(reporting, "get_reporting_integration_callbacks", lambda names: [Heard])
    return Heard.runs


def train(project: Path, number: int, answer: str = "continue", to: str = "tensorboard", **keys: Any) -> str:
    study = toy_study(project, training={"report_to": to})
    return run_trial(study, spec(project, number, keys), Kept(answer)).ending.value


def test_each_trial_has_one_run_of_its_own_which_is_closed_however_it_ends(
    project: Path, heard: list[dict[str, Any]]
) -> None:
    assert [train(project, 3), train(project, 4, "prune"), train(project, 4)] == ["complete", "pruned", "complete"]
    assert train(project, 5, **{"task.fail_at_step": 5}) == "failed"
    assert [(run["name"], run["losses"], run["ends"]) for run in heard] == [
        ("trial 3", 3, 1),
        ("trial 4", 1, 1),
        ("trial 4", 3, 1),
        ("trial 5", 1, 1),
    ]
    assert {run["WANDB_RUN_GROUP"] for run in heard} == {"toy"}
    ids = [run["WANDB_RUN_ID"] for run in heard]
    assert ids[1] == ids[2] and len(set(ids)) == 3, "a resumed trial goes on with its run"
    assert heard[0]["TENSORBOARD_LOGGING_DIR"] == str(project / "runs/toy/trials/0003/tensorboard")
    assert not {"WANDB_RUN_GROUP", "WANDB_RUN_ID", "TENSORBOARD_LOGGING_DIR"} & os.environ.keys()


def test_nothing_is_reported_without_report_to(project: Path, heard: list[dict[str, Any]]) -> None:
    assert train(project, 3, to="none") == "complete"
    assert heard == []


@pytest.mark.skipif(not find_spec("tensorboard"), reason="pip install tensorboard")
@pytest.mark.parametrize("answer", ["continue", "prune"])
def test_tensorboard_has_the_trials_curve(project: Path, answer: str) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(project, 3, answer)
    events = EventAccumulator(str(project / "runs/toy/trials/0003/tensorboard")).Reload()
    assert len(events.Scalars("eval/loss")) == {"continue": 3, "prune": 1}[answer]


@pytest.mark.skipif(not find_spec("wandb"), reason="pip install wandb")
def test_wandb_has_a_run_for_each_trial(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    for number in (3, 4):
        assert train(project, number, "prune", to="wandb") == "pruned"
        (run,) = (project / f"runs/toy/trials/{number:04d}/wandb").glob("offline-run-*/run-*.wandb")
        said = run.read_bytes()
        assert f"trial {number}".encode() in said and b"toy" in said and b"eval/loss" in said
