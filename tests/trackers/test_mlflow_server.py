"""Against a real ``mlflow server``: what it takes in, it takes in once, also when it is killed in the middle."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import written_trials as trials
from mlflow_server import DEADLINE_SECONDS, Middle, Server
from sweepkit.study.study import StudyData
from sweepkit.trackers.courier import Courier
from sweepkit.trackers.mlflow.store import Store
from sweepkit.trackers.mlflow.tracker import MLflowTracker
from sweepkit.trial.trial import Ending

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def named(project: Path, server: Server) -> Callable[[str], StudyData]:
    """Return a function that makes a study of this name on the server."""
    return lambda name: trials.toy_study(project, name=name, tracking={"uri": server.uri, "register": f"{name}-model"})


def counts(server: Server, study: StudyData) -> dict[str, tuple[str, int]]:
    """Return run name → (status, number of metrics) of the study's trials."""
    rows = server.ask(
        "select r.name, r.status, count(m.key) from runs r join experiments e on e.experiment_id = r.experiment_id "
        f"left join metrics m on m.run_uuid = r.run_uuid where e.name = '{study.name}' group by r.run_uuid"
    )
    assert len({name for name, _, _ in rows}) == len(rows)
    return {name: (status, metrics) for name, status, metrics in rows}


def expected(steps: int) -> int:
    """Return the number of metrics of a whole trial: three a step, two an evaluation, four at its end."""
    return steps * 3 + steps // 10 * 2 + 4


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Server]:
    """Return a server of the test's own, which it may kill."""
    server = Server(tmp_path)
    server.start()
    yield server
    server.kill()


def test_a_server_killed_in_the_middle_has_everything_once_in_the_end(project: Path, mortal: Server) -> None:
    server, study = mortal, trials.toy_study(project, name="killed", tracking={"uri": mortal.uri})
    steps, said = 200, list[str]()
    rows = {number: trials.row(number, Ending.running) for number in range(4)}
    courier = Courier(MLflowTracker(study, lambda: list(rows.values())), warn=said.append)
    courier.open()

    def train(number: int, some: range) -> None:
        for event in trials.training(number, some):
            trials.write(study, number, [event])
            courier.poke()

    def until(holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not holds():
            assert time.monotonic() < deadline, said
            threading.Event().wait(0.02)

    for number in rows:
        trials.write(study, number, [trials.started(number)])
        train(number, range(1, 51))
    until(lambda: sum(n for _, n in counts(server, study).values()) > 100)
    server.kill()
    for number in rows:
        train(number, range(51, 101))
    until(lambda: len(said) == 1)
    server.start()
    for number in rows:
        train(number, range(101, steps + 1))
        trials.write(study, number, [trials.finished(number, Ending.complete, step=steps)])
        rows[number] = trials.row(number, Ending.complete)
    assert courier.close({"best": 3, "value": 0.6}, timeout_seconds=DEADLINE_SECONDS) == ""
    found = counts(server, study)
    assert found.pop("killed") == ("FINISHED", 1), "the value"
    assert list(found.values()) == [("FINISHED", expected(steps))] * 4
    assert said[0].startswith("tracking: MlflowException: API request to http://127.0.0.1")


def test_an_answer_that_was_lost_makes_no_second_run(server: Server, named: Callable[[str], StudyData]) -> None:
    study = named("lost")
    rows = [trials.whole(study, number) for number in range(3)]
    tracker = MLflowTracker(study, lambda: rows)
    tracker.open()
    create = Store(server.uri, study.place).client.create_run
    run = create(
        server.ask("select experiment_id from experiments where name = 'lost'")[0][0],
        tags={
            "sweepkit.id": server.ask("select value from tags where key = 'sweepkit.id' order by rowid desc")[0][0],
            "sweepkit.study": "lost",
            "sweepkit.role": "trial",
            "sweepkit.trial": "1",
            "mlflow.parentRunId": json.loads(study.place.mlflow_json.read_text())["parent_run_id"],
        },
        run_name="made, but nobody knew",
    )
    again = MLflowTracker(study, lambda: rows)
    again.open()
    again.sync()
    assert counts(server, study)["made, but nobody knew"] == ("FINISHED", expected(30))
    assert len(counts(server, study)) == 4
    assert json.loads(study.place.mlflow_json.read_text())["trials"]["1"]["run_id"] == run.info.run_id


@pytest.mark.parametrize("late", [False, True])
def test_a_lost_answer_to_the_parents_creation_makes_no_second_parent(
    server: Server, project: Path, late: bool
) -> None:
    """``late``: the server makes a second one only after the first was found, as one that hung does."""
    lost: list[str] = []

    def answers(path: str, answer: bytes) -> bytes | None:
        if not path.endswith("/runs/create") or lost:
            return answer
        lost.append(json.loads(answer)["run"]["info"]["run_id"])
        return None

    with Middle(server, answers) as middle:
        study = trials.toy_study(project, name=f"parent-{late}", tracking={"uri": middle.uri})
        rows = [trials.whole(study, number) for number in (0, 1)]
        tracker = MLflowTracker(study, lambda: rows)
        with pytest.raises(Exception, match="API request to"):
            tracker.open()
        if late:
            store = Store(server.uri, study.place)
            made = store.client.get_run(lost[0])
            store.client.create_run(
                made.info.experiment_id, made.info.start_time, dict(made.data.tags), made.info.run_name
            )
        tracker.open()
        tracker.sync()
        tracker.close({"best": 1, "value": 0.6})
    assert len(lost) == 1
    kept = server.ask(
        "select r.name, r.status, r.start_time from runs r join experiments e on e.experiment_id = r.experiment_id "
        f"where e.name = 'parent-{late}' and r.lifecycle_stage = 'active' order by r.start_time, r.rowid"
    )
    assert [(name, status) for name, status, _ in kept] == [
        (f"parent-{late}", "FINISHED"),
        ("0000 baseline lr=3e-5 bs=16", "FINISHED"),
        ("0001 lr=6e-5 bs=16", "FINISHED"),
    ]
    assert kept[0][2] <= kept[1][2], "the parent starts before its trials"


def test_delivering_twice_to_a_server_doubles_nothing(server: Server, named: Callable[[str], StudyData]) -> None:
    study = named("twice")
    rows = [trials.whole(study, 0), trials.whole(study, 1, Ending.pruned)]
    for _ in range(2):
        tracker = MLflowTracker(study, lambda: rows)
        tracker.open()
        tracker.sync()
        study.place.mlflow_json.unlink()
    assert sorted(counts(server, study).values()) == [
        ("FINISHED", expected(30)),
        ("KILLED", expected(30)),
        ("RUNNING", 0),
    ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_checkpoint_is_uploaded_and_stays_where_it_was(
    server: Server, named: Callable[[str], StudyData], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow.transformers as flavor

    study = named("uploaded")
    rows = [trials.whole(study, 0), trials.whole(study, 1)]
    classifier = trials.tiny_classifier(tmp_path)
    best = [trials.keeps_best(study, number, classifier) for number in (0, 1)]
    (best[0] / "training_args.bin").write_bytes(b"a pickle")
    tracker = MLflowTracker(study, lambda: rows)
    tracker.open()
    tracker.sync()
    for number in (0, 1):
        tracker.keep(number)
    tracker.close({"best": 1})
    assert [folder.is_dir() and not folder.is_symlink() for folder in best] == [True, True]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", server.uri)
    loaded = flavor.load_model("models:/uploaded-model@champion")
    assert loaded("free prize")[0]["label"] in ("ham", "spam")
    assert len(list((server.folder / "files").rglob("model.safetensors"))) == 2
    assert list((server.folder / "files").rglob("training_args.bin")) == []
    tracker.drop(0)
    assert not best[0].exists()
    (left,) = (server.folder / "files").rglob("model.safetensors")
    tracker.drop(1)
    assert not best[1].exists()
    assert left.exists(), "a registered model stays"
