"""A trial is built and checked before the first one starts, and not again until something changes that it depends on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from making import toy_study
from sweepkit.driver import prepare
from sweepkit.report.watch import Watcher
from sweepkit.study.errors import StudyFileError
from sweepkit.study.study import StudyData


class _Built:
    """An executor that builds nothing: it answers, and counts how often it is asked."""

    def __init__(self, study: StudyData, model: Path) -> None:
        self.imported: list[str] = []
        self.asked: list[str] = []
        self.problems: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self.data = "data-1"
        self.files = True
        self._study, self._model = study, model

    def wait_ready(self) -> float:
        return 0.0

    def preload(self, modules: list[str]) -> None:
        self.imported += modules

    def job(self, job: str, **_: Any) -> dict[str, Any]:
        self.asked.append(job)
        if job == "prepare":
            return {"folder": self.data, "about": {"rows": {"train": 8, "validation": 8}}, "notes": []}
        task = self._study.home / "task.py"
        return {
            "problems": self.problems,
            "notes": self.notes,
            "facts": ["predictions: argmax"],
            "peak_memory_mb": 300.0,
            "model_mb": 2.0,
            "model_folder": str(self._model),
            "micro_batch_matters": False,
            "imported": ["torch.optim"],
            "files": {str(task): [task.stat().st_mtime_ns, task.stat().st_size]} if self.files else {},
        }


@pytest.fixture
def study(project: Path, monkeypatch: pytest.MonkeyPatch) -> StudyData:
    monkeypatch.setenv("XDG_CACHE_HOME", str(project / "cache"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name in ("task.py", "model/config.json"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text("{}")
    made = toy_study(project)
    made.place.folder.mkdir(parents=True)
    return made


@pytest.fixture
def built(study: StudyData) -> _Built:
    return _Built(study, study.home / "model")


def ask(study: StudyData, built: _Built) -> int:
    """Prepare a study and return how often a trial was built for it."""
    built.asked.clear()
    found = prepare.prepare(study, {}, built, Watcher())  # type: ignore[arg-type]  # it stands for an executor
    assert (found.peak_memory_mb, found.model_bytes, found.splits_batches) == (300.0, 2e6, True)
    assert built.imported.pop() == "torch.optim"
    return built.asked.count("inspect")


CHANGES: dict[str, Callable[[StudyData, _Built, pytest.MonkeyPatch], StudyData | None]] = {
    "the task's code": lambda study, *_: (study.home / "task.py").write_text("x = 1") and None,
    "the model's files": lambda study, *_: (study.home / "model/config.json").write_text('{"a": 1}') and None,
    "the data": lambda _, built, __: setattr(built, "data", "data-2"),
    "the devices": lambda _, __, patch: patch.setenv("CUDA_VISIBLE_DEVICES", "1"),
    "a fixed argument": lambda study, *_: toy_study(study.home, training={"max_steps": 7}),
    "the space": lambda study, *_: toy_study(study.home, space={"learning_rate": {"low": 1e-5, "high": 1.0}}),
    "the metric": lambda study, *_: toy_study(study.home, objective={"metric": "eval_other", "direction": "minimize"}),
    "the ranks": lambda study, *_: toy_study(study.home, backend={"ranks_per_trial": 2}),
    "a task by value": lambda study, *_: study.place.task.write_bytes(b"") and None,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_trial_is_built_again_only_after_a_change(
    study: StudyData, built: _Built, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    assert [ask(study, built), ask(study, built)] == [1, 0]
    assert ask(toy_study(study.home, budget={"trials": 99}, confirm={"top": 1, "seeds": 2}), built) == 0
    changed = CHANGES[change](study, built, monkeypatch) or study
    assert ask(changed, built) == 1
    assert ask(changed, built) == (1 if change == "a task by value" else 0)


def test_a_trial_that_depends_on_no_file_is_not_built_again_either(study: StudyData, built: _Built) -> None:
    built.files, built._model = False, study.home / "none"
    assert [ask(study, built), ask(study, built)] == [1, 0]


def test_what_went_wrong_is_not_remembered(study: StudyData, built: _Built) -> None:
    built.notes = ["the model cannot be saved; trials may fail in the same way"]
    assert [ask(study, built), ask(study, built)] == [1, 1]
    built.problems = [("objective.metric", "nothing reports eval_loss")]
    for _ in range(2):
        with pytest.raises(StudyFileError, match="nothing reports"):
            ask(study, built)
