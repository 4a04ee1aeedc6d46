"""The study in Python: which form a Task takes in it, what cannot be sent, and that it is the same as the file."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from sweepkit import InputError, Study, StudyFileError, Task, load_study
from sweepkit.check.study_file import same
from sweepkit.tasks import by_value
from sweepkit.tasks.text import TextClassification

# As in a notebook's cell: what is defined here goes to other processes by value.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

LOCK = threading.Lock()
KEYS: dict[str, Any] = {"name": "toy", "objective": {"metric": "eval_loss", "direction": "minimize"}}


class Rows(Task):
    """A task of a cell."""

    length: int = 4
    anything: object = None

    def data(self) -> Any:
        """Nothing to speak of."""
        return [self.length]


def guarded() -> Any:
    return LOCK


def test_a_notebook_shows_the_study_and_completes_its_own_names(project: Path) -> None:
    space = {"learning_rate": {"low": 1e-5, "high": 1e-3}}
    study = Study(**{**KEYS, "question": "Is a < b?"}, task={"path": "task.py:Toy"}, space=space)
    shown = study._repr_html_()
    assert [word in shown for word in ("<b>toy</b>", "Is a &lt; b?", "learning_rate", "no trial yet")] == [True] * 4
    offered = dir(study)
    assert {"run", "best_model", "plot_curves", "trials", "space", "budget"} <= set(offered)
    assert [name for name in offered if name.startswith(("model_", "_")) or name in ("copy", "json", "parse_obj")] == []


def test_a_task_of_a_cell_lies_in_the_studys_folder_and_its_values_are_options(project: Path) -> None:
    study = Study(task=Rows(length=64), **KEYS)
    assert study.task.model_dump(exclude_none=True) == {"pickle": "runs/toy/task.pickle", "length": 64}


def test_a_built_in_task_is_named_by_its_kind(project: Path) -> None:
    study = Study(task=TextClassification(model="m", data={"path": "d.csv"}), **KEYS)
    assert (study.task.type, study.task.pickle, study.task.options["model"]) == ("text-classification", None, "m")


def test_a_task_of_a_file_beside_the_notebook_is_named_by_the_file(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "beside.py").write_text("from sweepkit import Task\n\n\nclass Mine(Task):\n    length: int = 4\n")
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.delitem(sys.modules, "beside", raising=False)
    import beside  # type: ignore[import-not-found]  # written above

    assert Study(task=beside.Mine, **KEYS).task.path == "beside.py:Mine"


def test_a_study_prints_itself_in_one_line(project: Path) -> None:
    study = Study(task=Rows, space={"learning_rate": {"low": 1e-5, "high": 1e-3}}, budget={"trials": 2}, **KEYS)
    assert repr(study) == str(study) == "<Study toy: minimize eval_loss, 1 hyperparameter, 2 trials>"


def test_making_a_study_writes_nothing(project: Path) -> None:
    Study(task=Rows, **KEYS)
    assert [path.name for path in project.iterdir()] == ["pyproject.toml"]


def test_a_study_with_a_task_by_value_is_the_same_when_written_and_read(project: Path) -> None:
    space = {"learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}}
    study = Study(task=Rows(length=64), space=space, budget={"trials": 2}, **KEYS)
    study.to_yaml("study.yaml")
    read = load_study("study.yaml")
    assert same(read, study)
    assert by_value.loads(study.place.task, project)(length=7).data() == [7]


def test_what_cannot_be_sent_is_named_with_the_way_to_it(project: Path) -> None:
    class Guarded(Rows):
        def data(self) -> Any:
            return [guarded() for _ in range(2)]

    with pytest.raises(InputError, match=r"Guarded cannot be sent .* Guarded\.data uses guarded, which uses LOCK: "):
        Study(task=Guarded, **KEYS)


def test_a_default_that_cannot_be_sent_is_named(project: Path) -> None:
    class Holding(Rows):
        anything: object = LOCK

    with pytest.raises(InputError, match=r"Holding cannot be sent to the trial processes: Holding\.anything: "):
        Study(task=Holding, **KEYS)


def test_an_option_that_yaml_cannot_say_is_refused(project: Path) -> None:
    with pytest.raises(InputError, match="the options of Rows must be values that YAML can hold"):
        Study(task=Rows(anything=LOCK), **KEYS)


def test_stopping_what_does_not_run_does_nothing_and_waiting_for_it_says_so(project: Path) -> None:
    study = Study(task=Rows, **KEYS)
    study.stop()
    with pytest.raises(InputError, match="does not run in the background"):
        study.wait()


def test_a_study_keeps_its_home_when_the_current_folder_changes(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = Study(task=Rows, **KEYS)
    monkeypatch.chdir("/")
    assert study.place.root == project


def test_what_a_task_of_a_cell_uses_is_sent_as_it_is_when_the_study_runs(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Guarded(Rows):
        def data(self) -> Any:
            return [guarded()]

    monkeypatch.setitem(globals(), "LOCK", 5)
    study = Study(task=Guarded, **KEYS)
    monkeypatch.setitem(globals(), "LOCK", threading.Lock())
    with pytest.raises(InputError, match=r"Guarded\.data uses guarded, which uses LOCK: cannot pickle"):
        study.run()


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"task.lenght": {"low": 1, "high": 9}}, r"space\.task\.lenght: Rows has no option lenght.* length"),
        ({"task.length": {"low": 0.5, "high": 9.0}}, r"space\.task\.length: .*got 0\.5"),
        ({"task.length": {"choices": [4, "long"]}}, r"space\.task\.length: .*got 'long'"),
        ({"way": {"choices": {"a": {"task.length": "x"}, "b": {}}}}, r"space\.way\.a\.task\.length: .*got 'x'"),
    ],
)
def test_options_that_a_task_of_a_cell_does_not_take_are_refused_where_the_study_is_made(
    project: Path, space: dict[str, Any], message: str
) -> None:
    with pytest.raises(StudyFileError, match=message):
        Study(task=Rows, space=space, **KEYS)


def test_an_option_that_a_task_of_a_cell_needs_must_be_given_or_searched(project: Path) -> None:
    class Needing(Rows):
        width: int

    with pytest.raises(StudyFileError, match=r"task\.width: is missing"):
        Study(task=Needing, **KEYS)
    assert Study(task=Needing, space={"task.width": {"low": 1, "high": 2}}, **KEYS).task.pickle
