"""A trial that was stopped and whose checkpoint is damaged starts over and says so; training is real, in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from making import toy_study
from sweepkit.check import Checked, convert_numbers, known_values
from sweepkit.driver.run import Outcome, Replacements, Watcher, run_checked
from sweepkit.report.watch import Switch
from sweepkit.study.study import StudyData
from sweepkit.tasks.load import task_class
from sweepkit.trial.events import Checkpointed, Event, Started
from sweepkit.trial.log import TrialLog

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


def ran(study: StudyData, watch: Watcher, switch: Switch | None = None) -> Outcome:
    here = Replacements(task=task_class(study.task, study.home))
    return run_checked(Checked(study, known_values(study)), watch=watch, switch=switch, instead=here)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def zero(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


@pytest.mark.parametrize(
    ("name", "damage", "whole"),
    [
        ("model.safetensors", lambda file: None, True),
        ("model.safetensors", cut, False),
        ("optimizer.pt", zero, False),
        ("trainer_state.json", Path.unlink, False),
    ],
    ids=["whole", "cut", "zeros", "gone"],
)
def test_a_trial_goes_on_from_a_whole_checkpoint_alone(
    project: Path, name: str, damage: Callable[[Path], None], whole: bool
) -> None:
    study = convert_numbers(toy_study(project, budget={"trials": 1}, backend={"parallel": 1}))
    switch = Switch()
    assert ran(study, Stopping(switch), switch).status == "interrupted"
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
