"""A trial that was stopped and whose checkpoint is damaged starts over and says so; training is real, in this process."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from making import toy_study
from sweepkit.check import Checked, convert_numbers, known_values
from sweepkit.driver.run import Outcome, Replacements, Watcher, run_checked
from sweepkit.report.export import export
from sweepkit.report.watch import Switch
from sweepkit.study.errors import DamagedFile
from sweepkit.study.study import StudyData
from sweepkit.tasks.load import task_class
from sweepkit.trial.events import Checkpointed, Event, Started
from sweepkit.trial.log import TrialLog
from sweepkit.trial.objective import load_best_model

pytestmark = pytest.mark.real


class Stopping(Watcher):
    """Stops a run at a trial's first resumable checkpoint, and keeps what is said of the study."""

    def __init__(self, switch: Switch) -> None:
        self._switch = switch
        self.said: list[str] = []

    def on_event(self, event: Event) -> None:
        if isinstance(event, Checkpointed) and event.role == "last":
            self._switch.press()

    def on_note(self, text: str) -> None:
        self.said.append(text)


def study_in(project: Path) -> StudyData:
    return convert_numbers(toy_study(project, budget={"trials": 1}, backend={"parallel": 1}))


def ran(study: StudyData, watch: Watcher, switch: Switch | None = None) -> Outcome:
    here = Replacements(task=task_class(study.task, study.home))
    return run_checked(Checked(study, known_values(study)), watch=watch, switch=switch, instead=here)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project with a study that was stopped at its trial's first resumable checkpoint."""
    project = tmp_path_factory.mktemp("stopped")
    (project / "pyproject.toml").touch()
    switch = Switch()
    assert ran(study_in(project), Stopping(switch), switch).status == "interrupted"
    return project


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def zero(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "damage", "whole"),
    [
        ("model.safetensors", lambda file: None, True),
        ("model.safetensors", cut, False),
        ("model.safetensors", flip, False),
        ("optimizer.pt", zero, False),
        ("optimizer.pt", flip, False),
        ("trainer_state.json", Path.unlink, False),
        ("trainer_state.json", flip, False),
    ],
    ids=["whole", "cut", "a bit of the model", "zeros", "a bit of the optimizer", "gone", "a bit of the state"],
)
def test_a_trial_goes_on_from_a_whole_checkpoint_alone(
    stopped: Path, tmp_path: Path, name: str, damage: Callable[[Path], None], whole: bool
) -> None:
    study = study_in(shutil.copytree(stopped, tmp_path / "project"))
    [checkpoint] = (study.place.trial(0) / "last").iterdir()
    damage(checkpoint / name)
    watch = Stopping(Switch())
    [row] = ran(study, watch).rows
    assert row.ending == "complete"
    events = TrialLog(study.place.trial(0)).refresh()
    step = int(checkpoint.name.removeprefix("checkpoint-")) if whole else 0
    assert [event.resumed for event in events if isinstance(event, Started)] == [0, step]
    notes = [note for note in watch.said if "not as it was written" in note]
    assert [str(checkpoint / name) in note and "trial 0 starts over" in note for note in notes] == [True] * (not whole)
    if whole:
        model = study.place.trial(0) / "best" / name
        assert not (model.parent / "training_args.bin").exists()
        load_best_model(study, row, model.parent)
        assert {file.name for file in export(study, [row], row, tmp_path / "out")[0].iterdir()} >= {name}
        flip(model)
        for use in (
            lambda: load_best_model(study, row, model.parent),
            lambda: export(study, [row], row, tmp_path / "again"),
        ):
            with pytest.raises(DamagedFile, match=f"^{model} is not as it was written; train its trial again"):
                use()
