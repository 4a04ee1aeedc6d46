"""A cluster with a machine that does not see the study's folder: refused, or its trials' files travel through S3.

Two nodes of one machine stand for two machines. The second lives in a mount namespace of its own, where an empty file
system covers the folder of the projects, and in a UTS namespace, where it bears another name.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from making import toy_study, wait_until
from object_store import object_store
from sweepkit.driver.run import run
from sweepkit.report.watch import Watcher
from sweepkit.study.errors import InputError
from sweepkit.trial.events import Evaluated, Event, Finished, Started
from sweepkit.trial.trial import Reason

ray = pytest.importorskip("ray", reason="Ray Tune is missing; pip install 'sweepkit[ray]'")
pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(900)]
COVER = 'hostname apart && mount -t tmpfs none "$1" && shift && exec "$@"'
APART = ["env", "unshare", "--mount", "--uts", "--", "sh", "-c", COVER, "sh"]
"""Runs a command (after the folder that it is not to see) on the machine apart."""


@dataclass
class Cluster:
    """What a test needs of the two nodes."""

    address: str
    projects: Path
    """A folder that one node does not see."""
    disk: Path
    """Both nodes' own disk."""
    bucket: str

    def project(self) -> Path:
        folder = self.projects / "toy" / "studies"
        folder.mkdir(parents=True)
        (folder.parent / "pyproject.toml").touch()
        return folder


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    from ray.cluster_utils import Cluster as RayCluster

    # Ray's sockets, on that disk, want a short path.
    projects, disk = tmp_path_factory.mktemp("projects"), tmp_path_factory.mktemp("disk")
    if subprocess.run([*APART, str(projects), "true"], check=False, capture_output=True).returncode:
        pytest.skip(
            "no mount namespaces: they need root with CAP_SYS_ADMIN and the programs unshare, mount and hostname"
        )
    with object_store("depot") as bucket, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(disk))
        head = RayCluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1"]
        start += [f"--address={head.address}", f"--node-ip-address={head.address.partition(':')[0]}"]
        with (disk.parent / "apart.log").open("wb") as log:
            apart = subprocess.Popen([*APART, str(projects), *start], cwd="/", stdout=log, stderr=log)
        try:
            head.wait_for_nodes()
            wait_until(lambda: len(head.global_state.node_table()) == 2, 180, "the second node is there")
            yield Cluster(head.address, projects, disk, bucket)
        finally:
            apart.terminate()
            apart.wait(30)
            head.shutdown()


@pytest.fixture(params=["connects", "is connected"])
def connecting(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[dict[str, str]]:
    """Return the backend of a study that connects to the cluster, or runs in a process that is connected already."""
    if request.param == "connects":
        yield {"type": "ray", "address": cluster.address}
    else:
        ray.init(address=cluster.address, log_to_driver=False)
        yield {"type": "ray"}
        ray.shutdown()


def test_a_node_that_does_not_see_the_studys_folder_is_refused_with_the_reason(
    cluster: Cluster, connecting: dict[str, str]
) -> None:
    study = toy_study(cluster.project(), backend=connecting)
    with pytest.raises(InputError, match=r"backend\.path: node apart of the cluster does not see .*/runs/toy"):
        run(study)
    assert not list(study.place.trials.glob("*"))


class Killing(Watcher):
    """Kills the actor of the node apart's first trial at its second evaluation, before the trial gets its answer."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.trial: int | None = None
        self.actor: psutil.Process | None = None

    def on_event(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Evaluated) and event.number == 2 and self.actor is None:
            started = next(e for e in self.events if isinstance(e, Started) and e.trial == event.trial)
            if started.host == "apart":
                self.trial = event.trial
                _, self.actor, *_ = psutil.Process(started.pid).parents()  # the warm process forked the trial
                self.actor.kill()
                self.actor.wait(10)


def test_trials_of_a_node_that_shares_nothing_come_home_through_s3_and_outlive_its_actor(cluster: Cluster) -> None:
    project = cluster.project()
    backend = {"type": "ray", "address": cluster.address, "cpus_per_trial": 1, "path": f"{cluster.bucket}/sweeps"}
    study = toy_study(project, task={"step_seconds": 0.1}, checkpoints={"keep": 6}, backend=backend)
    watch = Killing()
    outcome = run(study, watch=watch)
    assert [str(row.ending) for row in outcome.rows] == ["complete"] * 4, outcome.reason
    assert {event.host for event in watch.events if isinstance(event, Started)} == {os.uname().nodename, "apart"}
    mine = [event for event in watch.events if event.trial == watch.trial]
    assert [event.reason is Reason.lost for event in mine if isinstance(event, Finished)] == [True, False]
    assert [event.resumed for event in mine if isinstance(event, Started)] == [0, 4]
    for row in outcome.rows:
        folder = study.place.trial(row.number)
        assert json.loads((folder / "spec.json").read_text())["directory"].startswith(f"{cluster.disk}/")
        assert (folder / "best" / "model.safetensors").exists()

    again = run(study.model_copy(update={"budget": study.budget.model_copy(update={"trials": 6})}).at(project))
    assert [str(row.ending) for row in again.rows] == ["complete"] * 6, again.reason
    assert watch.actor is not None
    assert not list(cluster.disk.glob(f"sweepkit-{watch.actor.pid}-*")), "its scratch folder is left behind"
