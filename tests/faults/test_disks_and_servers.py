"""Commands on a disk that takes nothing, and beside an MLflow server that does not answer: one sentence, and nothing lost.

The disks are real: a read-only mount and a full tmpfs, in a mount namespace of their own, which needs root.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import toys
from making import toy_study
from sweepkit.check import known_values
from sweepkit.check.study_file import to_yaml
from sweepkit.search.proposer import Proposer
from sweepkit.search.search import Search
from sweepkit.search.storage import open_storage
from sweepkit.study.identity import identify
from sweepkit.trackers.mlflow.tracker import MLflowTracker
from sweepkit.trial.events import Evaluated, Finished, Started
from sweepkit.trial.log import TrialLog

pytestmark = [pytest.mark.real, pytest.mark.slow]

READING = (("list",), ("list", "--json"), ("show", "toy"), ("show", "toy", "--json"), ("best", "toy"))
WRITING = (("report", "toy"), ("enqueue", "toy", "learning_rate=1e-3"), ("retry", "toy", "--failed"), ("sync", "toy"))
UI = ("ui", "toy")
PAGE = 4096
EXPORT = ("best", "toy", "--export", "out")
ASKING = (("check", "toy.yaml"), ("schema",), ("stop", "toy"))
MAKING = (
    ("new", "data.csv", "--model", "model"),
    ("task", "mine"),
    ("import", "sweep.yaml"),
    ("tune", "data.csv", "--model", "model"),
    ("run", "toy.yaml"),
    ("best", "toy", "--predict", "out.csv"),
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    """Return a project in which a study of three trials ran, one of them failed; MLflow has two of them."""
    home = tmp_path_factory.mktemp("disks")
    (home / "pyproject.toml").touch()
    study = toy_study(home).model_copy(update={"tracking": type(toy_study(home).tracking)()}).at(home)
    identify(study.place, study)
    search = Search(study, open_storage(study.place, study), Proposer(study, known_values(study)))
    for number, ending in enumerate(("complete", "complete", "failed")):
        asked = search.ask()
        assert asked is not None
        folder = study.place.trial(number)
        with TrialLog(folder) as log:
            log.append(Started(trial=number, at=time.time()))
            said = Evaluated(
                trial=number, at=time.time(), number=1, step=4, epoch=1, metrics={"eval_score": 0.5}, values=(0.5,)
            )
            log.append(said)
            search.report(said)
            end = Finished(trial=number, at=time.time(), ending=ending, values=(0.5,), seconds=1.0)
            log.append(end)
        search.tell(end)
        if number == 1:
            tracker = MLflowTracker(study, search.trials)
            tracker.open()
            tracker.sync()
    _fill_last_page(search, study.place.journal)
    (home / "toy.yaml").write_text(to_yaml(study))
    toys.tiny_csv(home / "data.csv", 60)
    shutil.copytree(tiny_bert, home / "model")
    (home / "sweep.yaml").write_text(
        "program: train.py\nmethod: random\nmetric: {name: eval/loss, goal: minimize}\n"
        "parameters: {learning_rate: {min: 1.0e-5, max: 1.0e-3}}\n"
    )
    (study.place.trial(0) / "best").mkdir()
    (study.place.trial(0) / "best" / "config.json").write_text("{}" + " " * 100_000)
    return home


def _fill_last_page(search: Search, journal: Path) -> None:
    """Lengthen a journal so that not even one more record fits into its last page."""
    storage, study_id = search.records.storage, search.records.create()
    before = journal.stat().st_size
    storage.set_study_user_attr(study_id, "padding", "")
    record = journal.stat().st_size - before
    storage.set_study_user_attr(study_id, "padding", "x" * (-(journal.stat().st_size + record + 5) % PAGE))
    assert journal.stat().st_size % PAGE == PAGE - 5


INSIDE = """
import hashlib, json, os, subprocess, sys, time
from pathlib import Path

here, commands = Path.cwd(), json.loads(sys.argv[1])
def files():
    found = {path: path.read_bytes() for path in here.rglob("*") if path.is_file() and not path.name.endswith(("-wal", "-shm"))}
    return {str(path): hashlib.sha256(content).hexdigest() for path, content in found.items()}
for command in commands:
    before, began = files(), time.monotonic()
    done = subprocess.run([sys.executable, "-m", "sweepkit", *command], capture_output=True, text=True, timeout=600)
    after = files()
    changed = sorted(path for path in {**before, **after} if before.get(path) != after.get(path))
    print(json.dumps([command, done.returncode, done.stdout, done.stderr, changed]), flush=True)
"""


def within(
    mounts: str, folder: Path, *commands: tuple[str, ...]
) -> dict[tuple[str, ...], tuple[int, str, str, list[str]]]:
    """Return (exit code, stdout, stderr, files changed) of commands in a folder, in a namespace with these mounts."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], check=False).returncode != 0:
        pytest.skip("needs root and unshare(1) for a mount namespace; run the tests as root")
    script = f"set -e\n{mounts}\ncd {folder}\nexec {sys.executable} -c \"$INSIDE\" '{json.dumps(commands)}'"
    environment = {**os.environ, "INSIDE": INSIDE}
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return {tuple(command): tuple(rest) for command, *rest in map(json.loads, done.stdout.splitlines())}


def is_a_sentence(stderr: str) -> bool:
    """Whether it is one line that begins as errors do."""
    return stderr.startswith("error: ") and stderr.count("\n") == 1 and len(stderr) < 400


def test_on_a_read_only_disk_what_reads_works_and_what_writes_says_so(home: Path) -> None:
    reading, writing = (*READING, *ASKING), (*WRITING, UI, EXPORT, *MAKING)
    said = within(f"mount --bind {home} {home}\nmount -o remount,ro,bind {home}", home, *reading, *writing)
    for command in reading:
        assert said[command][0] == 0, said[command]
    for command in writing:
        code, _, stderr, changed = said[command]
        assert (code, changed) == (1, []), (command, said[command])
        assert is_a_sentence(stderr) and ("ead-only" in stderr or "readonly" in stderr), (command, stderr)


def test_a_full_disk_leaves_everything_as_it_was(home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "full"
    folder.mkdir()
    mounts = f"mount -t tmpfs -o size=16m none {folder}\ncp -a {home}/. {folder}"
    fill = f"{mounts}\ncat /dev/zero > {folder}/fill 2>/dev/null || true"
    said = within(fill, folder, *READING, *WRITING, EXPORT)
    for command in READING:
        assert said[command][0] == 0, said[command]
    for command in (*WRITING, EXPORT):
        code, _, stderr, changed = said[command]
        assert code == 1, (command, said[command])
        assert is_a_sentence(stderr) and ("no space left" in stderr.lower() or "full" in stderr), (command, stderr)
        assert [path for path in changed if not path.endswith(("/lock", "mlflow.db-journal"))] == [], command


class _Nonsense(http.server.BaseHTTPRequestHandler):
    status = 500

    def do_GET(self) -> None:
        page = b"<html>\n<body>Bad gateway</body>\n</html>"
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    do_POST = do_GET

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


class _Page(_Nonsense):
    status = 200


@pytest.fixture(params=["refused", "silent", "broken", "page"])
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """Yield the address of a server that refuses connections, never answers, fails, or is not MLflow's."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if request.param == "silent":
            listening.listen(16)
        if request.param in ("refused", "silent"):
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
            return
    handler = {"broken": _Nonsense, "page": _Page}[request.param]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()


def test_a_server_that_does_not_answer_costs_one_sentence(home: Path, server: str, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    shutil.copytree(home, folder)
    state = folder / "runs" / "toy" / "mlflow.json"
    before = hashlib.sha256(state.read_bytes()).hexdigest()
    environment = {**os.environ, "MLFLOW_TRACKING_URI": server, "MLFLOW_HTTP_REQUEST_TIMEOUT": "2"}
    for command in (("report", "toy"), ("sync", "toy"), ("ui", "toy")):
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "sweepkit", *command],
            cwd=folder, env=environment, capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
        assert done.returncode == 1, (command, done)
        assert is_a_sentence(done.stderr) and "MLflow" in done.stderr, (command, done.stderr)
        assert time.monotonic() - began < 40
    assert (folder / "runs" / "toy" / "report.html").exists(), "the report itself needs no server"
    assert hashlib.sha256(state.read_bytes()).hexdigest() == before
    enqueued = subprocess.run(
        [sys.executable, "-m", "sweepkit", "enqueue", "toy", "learning_rate=1e-3"],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert enqueued.returncode == 0, "it needs no server"
