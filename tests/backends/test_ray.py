"""What belongs to Ray alone: its resources, going on from the other backend, and that it may be missing altogether."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from making import sweep, toy_study, wait_until
from sweepkit.check.study_file import to_yaml
from sweepkit.driver.run import run
from sweepkit.report.watch import Outcome
from sweepkit.study.errors import InputError
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Started
from sweepkit.trial.log import TrialLog

pytestmark = pytest.mark.real


HIDDEN = """
import sys
from importlib.machinery import PathFinder


class WithoutRay(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] == "ray" else super().find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutRay
"""
"""A sitecustomize.py: every Python process that finds it has no ray."""


@pytest.fixture
def without_ray(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which no process can import ray."""
    folder = tmp_path / "hidden"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HIDDEN)
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}


def asked(project: Path, environment: dict[str, str], *options: str) -> tuple[int, str]:
    file = project / "study.yaml"
    file.write_text(to_yaml(toy_study(project, budget={"trials": 1})))
    process = sweep("run", str(file), *options, cwd=project, env=environment)
    output, _ = process.communicate(timeout=600)
    return process.returncode, output


def test_the_local_backend_works_where_ray_is_not_installed(project: Path, without_ray: dict[str, str]) -> None:
    code, output = asked(project, without_ray)
    assert (code, "1 complete" in output) == (0, True), output


def test_ray_backend_without_ray_says_what_to_install(project: Path, without_ray: dict[str, str]) -> None:
    code, output = asked(project, without_ray, "--backend", "ray")
    assert (code, "pip install 'sweepkit[ray]'" in output) == (2, True), output


def test_a_ray_that_does_not_start_is_one_sentence(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="Ray Tune is missing; pip install 'sweepkit[ray]'")
    from sweepkit.backends.ray import RayBackend

    attempts: list[str] = []

    def time_out(**given: Any) -> None:
        attempts.append(given["_temp_dir"])
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", time_out)
    session: Any = None  # no trial is asked for before Ray has started
    with pytest.raises(InputError, match="Ray did not start on this machine: The current node timed out"):
        RayBackend(toy_study(project)).drive(session)
    assert len(set(attempts)) == 2


@pytest.mark.slow
def test_a_ray_that_is_started_here_is_closed_to_others(project: Path, tmp_path: Path) -> None:
    """It listens on the loopback interface alone, its files are the user's, and its token lies in none."""
    pytest.importorskip("ray", reason="Ray Tune is missing; pip install 'sweepkit[ray]'")
    (home := tmp_path / "home").mkdir()
    file = project / "study.yaml"
    file.write_text(to_yaml(toy_study(project, budget={"trials": 1}, task={"step_seconds": 0.5})))
    environment = {**os.environ, "HOME": str(home), "RAY_AUTH_MODE": "token"}  # as Ray itself sets it
    process = sweep("run", str(file), "--backend", "ray", cwd=project, env=environment)
    begun = lambda: TrialLog(project / "runs/toy/trials/0000").started  # noqa: E731
    wait_until(lambda: begun() or process.poll() is not None, 300, "the trial runs")
    assert begun(), process.communicate()[0]
    driver = psutil.Process(process.pid)
    listening = [
        connection.laddr.ip
        for each in [driver, *driver.children(recursive=True)]
        for connection in each.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    [scratch] = Path(tempfile.gettempdir()).glob(f"sweepkit-{process.pid}-*")
    assert scratch.stat().st_mode & 0o777 == 0o700
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}
    assert not (home / ".ray").exists() and not scratch.exists()


@pytest.fixture(scope="module")
def two_gpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Ray of four cores that believes in two GPUs."""
    ray = pytest.importorskip("ray", reason="Ray Tune is missing; pip install 'sweepkit[ray]'")
    folder = tmp_path_factory.mktemp("r")
    ray.init(num_cpus=4, num_gpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=str(folder))
    yield
    ray.shutdown()


@pytest.mark.parametrize(
    ("asked_for", "count", "bundle"),
    [
        ({"gpus_per_trial": 0.5}, 4, {"CPU": 1.0, "GPU": 0.5}),
        ({"gpus_per_trial": 1, "cpus_per_trial": 2}, 2, {"CPU": 2.0, "GPU": 1.0}),
        ({"gpus_per_trial": 2, "ranks_per_trial": 2}, 1, {"CPU": 4.0, "GPU": 2.0}),
        ({"gpus_per_trial": 0, "parallel": 2}, 2, {"CPU": 2.0}),
        ({}, 2, {"CPU": 2.0, "GPU": 1.0}),
        ({"use_cpu": True}, 4, {"CPU": 1.0}),
    ],
)
@pytest.mark.usefixtures("two_gpus")
def test_what_a_trial_gets_is_what_tune_reserves(
    project: Path, asked_for: dict[str, Any], count: int, bundle: dict[str, float]
) -> None:
    from sweepkit.backends.ray import RayBackend

    training = {"use_cpu": asked_for.pop("use_cpu", False)}
    backend = RayBackend(toy_study(project, training=training, backend={"type": "ray", **asked_for}))
    slot, found = backend._slots()
    assert (found, backend._bundle(slot)) == (count, bundle)


@pytest.mark.parametrize(("gpus", "count"), [((2, 2), 2), ((3, 1), 1), ((4, 3, 0), 3), ((1, 1), 0), ((1, 0), 0)])
def test_a_trials_gpus_are_on_one_node(
    project: Path, monkeypatch: pytest.MonkeyPatch, gpus: tuple[int, ...], count: int
) -> None:
    from sweepkit.backends import ray

    monkeypatch.setattr(ray, "_nodes", lambda: [{"Resources": {"CPU": 8.0, "GPU": float(each)}} for each in gpus])
    backend = ray.RayBackend(toy_study(project, backend={"type": "ray", "gpus_per_trial": 2}))
    if count:
        assert backend._slots()[1] == count
    else:
        with pytest.raises(InputError, match=r"backend\.gpus_per_trial: 2 asked for, "):
            backend._slots()


@pytest.mark.slow
@pytest.mark.usefixtures("two_gpus")
def test_both_ranks_of_a_gang_train_the_same(project: Path) -> None:
    note = project / "note"
    gang = {"type": "ray", "parallel": 1, "ranks_per_trial": 2, "cpus_per_trial": 1, "gpus_per_trial": 0}
    space = {"learning_rate": {"choices": [3e-3]}}
    outcome = run(toy_study(project, task={"note": str(note)}, space=space, budget={"trials": 1}, backend=gang))
    assert [str(row.ending) for row in outcome.rows] == ["complete"]
    said = [json.loads(Path(f"{note}-{rank}").read_text()) for rank in (0, 1)]
    assert said[0] == said[1]
    assert said[0]["learning_rate"] == 3e-3


@pytest.mark.slow
@pytest.mark.usefixtures("two_gpus")
def test_checkpoints_travel_through_a_path_where_nodes_do_not_share_the_studys_folder(
    project: Path, tmp_path: Path
) -> None:
    path = f"file://{tmp_path}/depot"
    once = {"kill": True, "fail_at_step": 6, "once": str(project / "once")}
    backend = {"type": "ray", "parallel": 1, "gpus_per_trial": 0, "path": path}
    study = toy_study(project, task=once, budget={"trials": 2}, retries={"crash": 1}, backend=backend)
    outcome = run(study)
    assert [(str(row.ending), row.attempts) for row in outcome.rows] == [("complete", 2), ("complete", 1)]
    starts = [event for event in TrialLog(study.place.trial(0)).refresh() if isinstance(event, Started)]
    assert [event.resumed for event in starts] == [0, 4]
    for number in (0, 1):
        folder = study.place.trial(number)
        assert json.loads((folder / "spec.json").read_text())["directory"] != str(folder), "it trained somewhere else"
        assert sorted(path.name for path in folder.iterdir()) == ["best", "console.log", "events.jsonl", "spec.json"]
        assert (folder / "best" / "model.safetensors").exists()
    assert not list((tmp_path / "depot").iterdir())


def continued(project: Path) -> tuple[StudyData, Outcome]:
    """Two trials on this machine, two more on Ray that share a GPU, and a last one on this machine again."""
    file: dict[str, Any] = {"budget": {"trials": 2}}
    assert run(toy_study(project, **file)).status == "done"
    more = {"budget": {"trials": 4}, "backend": {"type": "ray", "parallel": 2, "gpus_per_trial": 0.5}}
    assert run(toy_study(project, **more)).status == "done"
    study = toy_study(project, budget={"trials": 5})
    return study, run(study)


@pytest.mark.slow
@pytest.mark.usefixtures("two_gpus")
def test_a_study_goes_on_on_the_other_backend_and_back_and_sees_the_gpus_it_was_given(project: Path) -> None:
    study, outcome = continued(project)
    assert [(row.number, str(row.ending)) for row in outcome.rows] == [(n, "complete") for n in range(5)]
    specs = [json.loads((study.place.trial(n) / "spec.json").read_text()) for n in range(5)]
    assert [len(spec["devices"]) for spec in specs] == [0, 0, 1, 1, 0]
    assert {spec["devices"][0] for spec in specs[2:4]} <= {"0", "1"}
