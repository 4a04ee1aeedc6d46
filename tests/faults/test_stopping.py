"""Studies stopped from outside and gone on with: signals, ``sweep stop``, ``sweep retry``, spent hours, a full disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from making import processes_below, sweep, toy_study, wait_until
from sweepkit.check.study_file import to_yaml
from sweepkit.driver.run import run
from sweepkit.report.rows import read
from sweepkit.study.study import StudyData

pytestmark = pytest.mark.real


def written(project: Path, **keys: Any) -> StudyData:
    """Return a study that is also ``study.yaml`` in the project."""
    study = toy_study(project, **keys)
    (project / "study.yaml").write_text(to_yaml(study))
    return study


def start(project: Path, *more: str) -> subprocess.Popen[str]:
    """``sweep run`` in a process whose descendants can be told."""
    return sweep("run", "study.yaml", *more, cwd=project, env={**os.environ, "SWEEPKIT_TEST_MARK": str(project)})


def left_of(process: subprocess.Popen[str], project: Path, code: int, seconds: float = 30) -> str:
    """Return what the command printed; it has to end in time with ``code`` and to leave no process."""
    output, _ = process.communicate(timeout=seconds)
    assert process.returncode == code, output
    wait_until(lambda: not processes_below(str(project)), 5, "every process is gone")
    return output


def endings(study: StudyData) -> list[str]:
    return [str(row.ending) for row in read(study)]


@pytest.mark.parametrize(
    "ways", [("SIGTERM", "sweep stop"), pytest.param(("SIGINT", "SIGTERM", "sweep stop"), marks=pytest.mark.slow)]
)
def test_however_a_study_is_stopped_it_checkpoints_and_goes_on(project: Path, ways: tuple[str, ...]) -> None:
    study = written(project, budget={"trials": 2}, task={"step_seconds": 0.1}, training={"num_train_epochs": 10})
    lasts = lambda: sorted(project.glob("runs/toy/trials/*/last/checkpoint-*"))  # noqa: E731
    steps: list[int] = []
    for way in ways:
        before = lasts()
        process = start(project)
        wait_until(lambda before=before: lasts() and lasts() != before, 180, "a trial comes to a checkpoint")
        if way == "sweep stop":
            said = sweep("stop", "toy", cwd=project).communicate(timeout=180)[0]
            assert f"asked process {process.pid} to stop toy" in said
        else:
            process.send_signal(signal.Signals[way])
        output = left_of(process, project, 130)
        assert "interrupted" in output
        assert set(endings(study)) == {"stopped"}
        steps.append(max(int(path.name.removeprefix("checkpoint-")) for path in lasts()))
    assert steps == sorted(set(steps))
    left_of(start(project), project, 0, 90)
    assert endings(study) == ["complete"] * 2


def test_a_second_ctrl_c_ends_at_once_what_does_not_listen(project: Path) -> None:
    gate = project / "gate"
    study = written(
        project, budget={"trials": 2}, backend={"parallel": 2}, task={"wait_at_step": 5, "wait_for": str(gate)}
    )
    process = start(project)
    wait_until(lambda: len(list(project.glob("gate.here-*"))) == 2, 180, "both trials hang in their fifth step")
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    while "stopping: running trials checkpoint first; Ctrl-C again ends them at once" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    left_of(process, project, 130, 10)
    assert endings(study) == ["stopped"] * 2
    gate.touch()
    left_of(start(project), project, 0, 60)
    assert endings(study) == ["complete"] * 2
    starts = [json.loads(line) for line in (project / "runs/toy/trials/0000/events.jsonl").read_text().splitlines()]
    assert [line["resumed"] for line in starts if line["kind"] == "started"] == [0, 4]


def test_ctrl_c_while_everything_is_imported_records_nothing(project: Path) -> None:
    written(project)
    process = start(project)
    wait_until(lambda: psutil.Process(process.pid).children(), 180, "the warm process is there")
    process.send_signal(signal.SIGINT)
    output = left_of(process, project, 130)
    assert "Traceback" not in output
    assert not (project / "runs/toy/optuna.journal").exists()


@pytest.mark.slow
def test_failed_trials_are_run_again_as_new_ones_that_name_them(project: Path) -> None:
    study = written(
        project,
        budget={"trials": 2},
        retries={"crash": 0},
        task={"fail_at_step": 2, "once": str(project / "mark")},
        backend={"parallel": 1},
    )
    left_of(start(project), project, 1, 60)
    assert endings(study) == ["failed", "complete"]
    said = sweep("retry", "toy", "--failed", cwd=project).communicate(timeout=180)[0]
    assert "trial 2 retries trial 0" in said
    left_of(start(project), project, 0, 60)
    rows = read(study)
    assert [str(row.ending) for row in rows] == ["failed", "complete", "complete"]
    assert (rows[2].retry_of, rows[2].origin) == (0, "retry of 0") and rows[2].params == rows[0].params


@pytest.mark.slow
def test_hours_are_summed_over_resumes(project: Path) -> None:
    keys: dict[str, Any] = {"budget": {"trials": 50, "hours": 2 / 3600, "grace_minutes": 0}}
    first = run(toy_study(project, task={"step_seconds": 0.2}, **keys))
    again = run(toy_study(project, task={"step_seconds": 0.2}, **keys))
    assert "budget.hours" in first.reason and "budget.hours" in again.reason
    assert [row.number for row in again.rows] == [row.number for row in first.rows]


def test_each_trial_sees_its_own_gpu_and_gpu_hours_end_the_study(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "CUDA_VISIBLE_DEVICES", "5,7"
    )  # ids are handed out as they are named; none is asked whether it is there
    notes = [str(project / name) for name in ("a", "b", "c", "d")]
    study = toy_study(
        project,
        space={"task.note": {"choices": notes}},
        sampler={"type": "grid"},
        task={"step_seconds": 0.2},
        backend={"gpus_per_trial": 1},
        budget={"trials": 4, "gpu_hours": 2 / 3600, "grace_minutes": 1},
    )
    outcome = run(study)
    assert outcome.reason == "budget.gpu_hours: 0.000555556 GPU-hours used up"
    assert [str(row.ending) for row in outcome.rows] == ["complete"] * 2
    seen = [json.loads(Path(f"{note}-0").read_text())["devices"] for note in notes if Path(f"{note}-0").exists()]
    assert sorted(seen) == ["5", "7"]


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system can be mounted by root only")
def test_a_full_disk_stops_the_study_cleanly_and_it_goes_on_once_there_is_room(project: Path) -> None:
    straight = run(toy_study(project, name="straight", training={"model.ballast": 250_000}, backend={"parallel": 1}))
    study = written(project, training={"model.ballast": 250_000}, backend={"parallel": 1}, checkpoints={"keep": 4})
    disk = study.place.folder
    disk.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=9m", "tmpfs", str(disk)], check=True)
    try:
        output = left_of(start(project), project, 1, 60)
        assert "no space left on the disk" in " ".join(output.split())
        assert "free some space and run the same command" in " ".join(output.split())
        assert "Traceback" not in output
        done = [row for row in read(study) if str(row.ending) == "complete"]
        assert 0 < len(done) < 4
        subprocess.run(["mount", "-o", "remount,size=60m", str(disk)], check=True)
        left_of(start(project), project, 0, 60)
        rows = read(study)
        assert [(row.params, row.values) for row in rows] == [(row.params, row.values) for row in straight.rows]
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
