"""How a trial reads and reports an evaluation."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from making import toy_study
from sweepkit.study.damage import find_damage
from sweepkit.study.errors import TrialFailed
from sweepkit.study.paths import SEAL
from sweepkit.trial.callback import Diverged, TrialCallback
from sweepkit.trial.events import Evaluated, Event, Logged
from sweepkit.trial.reading import read
from sweepkit.trial.trial import TrialSpec


class Silence:
    """A line that always answers continue."""

    def send(self, event: Event) -> None:
        pass

    def ask(self, event: Evaluated) -> str:
        return "continue"

    def poll(self) -> str | None:
        return None


def made(folder: Path, *metrics: str) -> TrialCallback:
    """The callback of a trial with these goals, and a Trainer that stands at step 0."""
    goals = [{"metric": metric, "direction": "minimize"} for metric in metrics]
    study = toy_study(folder, objective={"metrics": goals, "value": "last"})
    spec = TrialSpec(number=0, hyperparameters={}, directory=str(folder))
    callback = TrialCallback(study, spec, Silence(), lambda _: None)
    callback.trainer = cast("Any", SimpleNamespace(state=TrainerState(), control=TrainerControl()))
    return callback


def test_the_goal_that_is_not_finite_is_named(tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"^eval_f1 is not finite at step 0$"):
        made(tmp_path, "eval_loss", "eval_f1").read({"eval_loss": 1.0, "eval_f1": math.nan})


class OnDevice:
    """The summed loss as a GPU holds it, which counts how often it is waited for."""

    device = SimpleNamespace(type="cuda")

    def __init__(self) -> None:
        self.value, self.reads = 1.0, 0

    def item(self) -> float:
        self.reads += 1
        return self.value


def test_a_loss_on_a_gpu_is_waited_for_where_the_trainer_logs_or_evaluates_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    callback, loss = made(tmp_path, "eval_loss", "eval_f1"), OnDevice()
    callback.trainer._tr_loss = cast("Any", loss)
    monkeypatch.setattr(callback, "_save_best", lambda step: None)
    args, control = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none"), TrainerControl()
    state = TrainerState(global_step=7)
    for _ in range(50):
        callback.on_step_end(args, state, control)
    assert loss.reads == 0
    callback.on_log(args, state, control, {"loss": 1.0})
    callback.read({"eval_loss": 1.0, "eval_f1": 0.5})
    callback.on_train_end(args, state, control)
    assert loss.reads == 3
    loss.value = math.nan
    callback.on_step_end(args, state, control)
    for found in (
        lambda: callback.on_log(args, state, control, {"loss": math.nan}),
        lambda: callback.read({"eval_loss": 1.0, "eval_f1": 0.5}),
        lambda: callback.on_train_end(args, state, control),
    ):
        with pytest.raises(Diverged, match="training loss is not finite at step"):
            found()
    assert len(callback.evaluations) == 1


def test_a_goal_that_is_no_number_is_named_as_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(TrialFailed, match=r"^objective.metric: eval_PER is a mapping \(f1, number\), not a number"):
        made(tmp_path, "eval_loss", "eval_PER").read({"eval_loss": 1.0, "eval_PER": {"f1": 0.5, "number": 3}})


def test_an_evaluation_before_the_first_step_is_no_evaluation_of_the_trial(tmp_path: Path) -> None:
    callback = made(tmp_path, "eval_loss", "eval_f1")
    callback.read({"eval_loss": 9.0, "eval_f1": math.nan}, on_start=True)
    assert callback.evaluations == []


def test_what_is_logged_into_checkpoints_is_json(tmp_path: Path) -> None:
    callback, state = made(tmp_path, "eval_loss", "eval_f1"), TrainerState()
    state.log_history = [{"eval_per_class": np.array([0.5, 1.0]), "eval_PER": {"f1": np.float32(0.5)}, "step": 3}]
    callback.on_log(TrainingArguments(str(tmp_path), use_cpu=True, report_to="none"), state, TrainerControl(), {})
    state.save_to_json(str(tmp_path / "state.json"))
    assert json.loads((tmp_path / "state.json").read_text())["log_history"] == [
        {"eval_per_class": [0.5, 1.0], "eval_PER": {"f1": 0.5}, "step": 3}
    ]


def test_a_resumable_checkpoint_is_sealed_and_a_link_in_its_place_leads_nowhere(tmp_path: Path) -> None:
    callback, elsewhere = made(tmp_path, "eval_loss", "eval_f1"), tmp_path / "elsewhere"
    (elsewhere / "precious").mkdir(parents=True)
    (tmp_path / "last").symlink_to(elsewhere)
    for step in (4, 8):
        written = tmp_path / f"checkpoint-{step}"
        written.mkdir()
        (written / "optimizer.pt").write_bytes(b"weights")
        path = callback._keep_last(written)
    assert (find_damage(path), (path / SEAL).is_file()) == ("", True)
    (path / "optimizer.pt").write_bytes(b"weighty")
    assert find_damage(path) == "optimizer.pt"
    assert [each.name for each in (tmp_path / "last").iterdir()] == ["checkpoint-8"]
    assert (elsewhere / "precious").is_dir()


def test_a_metric_has_a_name_that_every_file_and_terminal_takes(tmp_path: Path) -> None:
    name, sent = "eval_\ud800\x1b[31m\u202e", list[Event]()
    assert list(read({name: 0.5}, ()).numbers) == ["eval_??[31m?"]
    callback = made(tmp_path, "eval_loss", "eval_f1")
    callback._line = SimpleNamespace(send=sent.append)  # type: ignore[assignment]  # all that logging needs
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none")
    callback.on_log(arguments, TrainerState(), TrainerControl(), {"\ud800": 1.0})
    assert [list(event.metrics) for event in sent if isinstance(event, Logged)] == [["?"]]


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settled: set[int] = set()
    missing: list[str] = []
    rename, fsync = os.rename, os.fsync

    def noting(file: int) -> None:
        settled.add(os.fstat(file).st_ino)
        fsync(file)

    def looking(source: Path, target: Path) -> None:
        inside = [source, *source.rglob("*")]
        missing.extend(str(path) for path in inside if path.stat().st_ino not in settled)
        rename(source, target)

    monkeypatch.setattr(os, "fsync", noting)
    monkeypatch.setattr(os, "rename", looking)
    callback, written = made(tmp_path, "eval_loss", "eval_f1"), tmp_path / "checkpoint-4"

    def save(folder: str) -> None:
        (Path(folder) / "inside").mkdir(parents=True)
        (Path(folder) / "inside" / "weights.safetensors").write_bytes(b"weights")

    save(str(written))
    callback._keep_last(written)
    parts = {"save_model": save, "is_fsdp_enabled": False, "is_deepspeed_enabled": False}
    callback.trainer = cast("Any", SimpleNamespace(**parts))
    callback._save_best(4)
    assert (missing, [find_damage(tmp_path / each) for each in ("last/checkpoint-4", "best")]) == ([], ["", ""])
    assert all((tmp_path / each / SEAL).is_file() for each in ("last/checkpoint-4", "best"))


def test_an_evaluation_has_one_reading() -> None:
    found = read(
        {
            "eval_easy_accuracy": np.float64(0.5),
            "eval_hard_accuracy": torch.tensor(0.25),
            "eval_array": np.zeros(3),
            "eval_text": "fine",
            "eval_none": None,
            "eval_inf": math.inf,
            "epoch": 1.0,
        },
        ["eval_hard_accuracy"],
    )
    assert found.numbers == {"eval_easy_accuracy": 0.5, "eval_hard_accuracy": 0.25}
    assert found.others == {
        "eval_array": "an array of shape (3,)",
        "eval_text": "'fine'",
        "eval_none": "None",
        "eval_inf": "inf",
    }
