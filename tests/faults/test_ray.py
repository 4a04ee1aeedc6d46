"""What happens to a study on Ray when its nodes, its driver or all of Ray is killed: nothing finished is lost.

A cluster of three nodes on this machine stands for three machines; whatever is killed is killed by SIGKILL.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from making import processes_below, sweep, toy_study, wait_until
from sweepkit.check.study_file import to_yaml
from sweepkit.driver.run import run
from sweepkit.report.watch import Outcome, Watcher
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Evaluated, Event, Finished, Started
from sweepkit.trial.trial import Reason

ray = pytest.importorskip("ray", reason="Ray Tune is missing; pip install 'sweepkit[ray]'")
pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(900)]
TRIALS = 24


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Any]:
    """Three nodes of one core each."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.extra = [made.add_node(num_cpus=1), made.add_node(num_cpus=1)]
    yield made
    if ray.is_initialized():
        ray.shutdown()
    made.shutdown()


class Watching(Watcher):
    """Keeps what is told and does something once, when enough is heard."""

    def __init__(self, when: Callable[[Watching], bool], act: Callable[[], None]) -> None:
        self.events: list[Event] = []
        self._when = when
        self._act: Callable[[], None] | None = act
        self.open: set[int] = set()
        self.most = 0

    def on_event(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Started):
            self.open.add(event.trial)
        elif isinstance(event, Finished):
            self.open.discard(event.trial)
        self.most = max(self.most, len(self.open))
        if self._act and self._when(self):
            act, self._act = self._act, None
            act()


def spread(project: Path, cluster: Any, *, trials: int = TRIALS, step_seconds: float = 0.15) -> StudyData:
    return toy_study(
        project,
        task={"step_seconds": step_seconds},
        budget={"trials": trials},
        backend={"type": "ray", "address": cluster.address, "cpus_per_trial": 1},
        tracking={"uri": "sqlite:///mlflow.db"},
    )


def check_whole(study: StudyData, outcome: Outcome) -> None:
    from mlflow import MlflowClient

    assert outcome.status == "done", outcome.reason
    assert [str(row.ending) for row in outcome.rows] == ["complete"] * TRIALS
    client = MlflowClient(f"sqlite:///{study.place.root}/mlflow.db")
    (experiment,) = [found for found in client.search_experiments() if found.name == "toy"]
    runs = client.search_runs([experiment.experiment_id], max_results=200)
    children = [found for found in runs if "mlflow.parentRunId" in found.data.tags]
    assert Counter(found.info.status for found in children) == {"FINISHED": TRIALS}
    for found in children:
        history = client.get_metric_history(found.info.run_id, "eval_score")
        assert [metric.step for metric in history] == [4, 8, 12]


def test_every_node_trains_also_where_trials_are_shorter_than_an_actors_start(project: Path, cluster: Any) -> None:
    watch = Watching(lambda watch: watch.most == 3, lambda: None)
    study = spread(project, cluster, trials=80, step_seconds=0.005)
    assert run(study, watch=watch).status == "done"
    assert watch.most == 3


def test_trials_of_a_killed_node_go_on_elsewhere_from_their_checkpoints(project: Path, cluster: Any) -> None:
    study = spread(project, cluster)
    node = cluster.extra[-1]

    def in_the_middle(watch: Watching) -> bool:
        """Every node has a trial that has evaluated, one of them its second epoch just now."""
        last = watch.events[-1]
        evaluated = {event.trial for event in watch.events if isinstance(event, Evaluated)}
        return len(watch.open & evaluated) == 3 and isinstance(last, Evaluated) and last.number == 2

    watch = Watching(in_the_middle, lambda: cluster.remove_node(node, allow_graceful=False))
    outcome = run(study, watch=watch)
    check_whole(study, outcome)
    assert watch.most == 3, "not every node had a trial"
    lost = [event for event in watch.events if isinstance(event, Finished) and event.reason is Reason.lost]
    assert lost, "the killed node had no trial"
    for event in lost:
        starts = [each for each in watch.events if isinstance(each, Started) and each.trial == event.trial]
        evaluated = [each for each in watch.events if isinstance(each, Evaluated) and each.trial == event.trial]
        before = [each for each in starts if each.at < event.at]
        assert len(starts) == len(before) + 1  # before: none where the node died before the trial could say anything
        heard = [each.step for each in evaluated if each.at < event.at]
        assert not heard[:-1] or starts[-1].resumed >= heard[-2]


def test_a_study_goes_on_after_ray_is_gone(project: Path, tmp_path: Path) -> None:
    file = project / "study.yaml"
    file.write_text(to_yaml(toy_study(project, task={"step_seconds": 0.02}, backend={"type": "ray", "parallel": 1})))
    environment = {**os.environ, "SWEEPKIT_TEST_MARK": str(tmp_path)}
    process = sweep("run", str(file), cwd=tmp_path, env=environment)
    wait_until((project / "runs/toy/trials/0001/events.jsonl").exists, 300, "the second trial runs")
    for ours in processes_below(str(tmp_path)):
        if "ray" in ours.name() or "gcs_server" in ours.name():
            ours.send_signal(signal.SIGKILL)
    output, _ = process.communicate(timeout=600)
    assert process.returncode != 0
    wait_until(lambda: not processes_below(str(tmp_path)), 10, f"every process is gone; it said {output}")
    again = sweep("run", str(file), cwd=tmp_path, env=environment)
    output, _ = again.communicate(timeout=600)
    assert again.returncode == 0, output
    wait_until(lambda: not processes_below(str(tmp_path)), 10, "every process is gone")
    assert psutil.pid_exists(os.getpid())
