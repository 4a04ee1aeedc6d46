"""What all tests share: quiet libraries, an empty project folder, a tiny model, and no process left behind."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

collect_ignore = [
    "benchmarks",
    "gpu/capped.py",
    "gpu/plain.py",
    "matrix.py",
    "pictures",
]  # no tests
CACHE = Path(tempfile.mkdtemp(prefix="sweepkit-tests-"))
MODEL_TYPES = ("bert", "vit")
"""The types of model that studies under test search."""
MARK = "SWEEPKIT_TEST_SESSION"
# Before anything heavy is imported, and inherited by every process the tests start: nobody is phoned, nothing is
# downloaded, and nothing that lies in the user's own caches can decide a test.
os.environ.update(
    {
        "HF_HOME": str(CACHE / "huggingface"),
        "HF_HUB_OFFLINE": "1",
        # What was found out about the installed libraries stays true from one session to the next.
        "XDG_CACHE_HOME": str(Path(tempfile.gettempdir()) / f"sweepkit-tests-{os.getuid()}"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_raylet_start_wait_time_s": "120",  # on a busy machine
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": "1",  # tiny models; more threads would wait for each other
        MARK: uuid.uuid4().hex,
    }
)
gc.disable()  # until the tests are collected: what they import stays
for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "CUDA_VISIBLE_DEVICES"):
    os.environ.pop(name, None)

import huggingface_hub.constants  # noqa: F401  # keeps now whether it is offline; tests/check changes the environment
import psutil
import pytest
from hypothesis import settings

# A shell's background job ignores SIGINT, and so would every command that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

import imported
from sweepkit.check.fields.installed import read_installed
from sweepkit.trial.worker import SPARE

# `make test-all` asks for the thorough profile; at every commit a smaller sample is drawn.
settings.register_profile("commit", max_examples=40)
settings.register_profile("thorough", max_examples=500)
settings.load_profile("commit")

MANY_OBJECTS = 100_000
"""So many cost a garbage collection more than 30 ms."""
DEADLINE_SECONDS = 10.0
"""How long the processes of a finished test may take to go away by themselves."""


def pytest_configure(config: pytest.Config) -> None:
    """Find out once what the installed libraries accept, so that no test's command is the first to ask and says so."""
    if not hasattr(config, "workerinput"):
        read_installed(MODEL_TYPES)
    imported.use()


def pytest_collection_finish() -> None:
    """Leave what is imported by now out of all garbage collections."""
    _freeze()
    gc.enable()


def _freeze() -> None:
    """Leave what has gathered out of all garbage collections: after each training, accelerate asks for a full one."""
    if len(gc.get_objects()) > MANY_OBJECTS:
        gc.collect()
        gc.freeze()


def pytest_unconfigure() -> None:
    """End the process that others are forked from, and remove the session's caches."""
    imported.end()
    shutil.rmtree(CACHE, ignore_errors=True)


def _ours() -> set[psutil.Process]:
    """Return living processes that this test session started, also those whose parent is gone already."""
    me = psutil.Process()
    found = set(me.children(recursive=True))
    for process in psutil.process_iter():
        try:
            if process != me and process.environ().get(MARK) == os.environ[MARK]:
                found.add(process)
        except psutil.Error:  # gone meanwhile, or someone else's
            continue
    return {process for process in found if process.pid not in imported.pids() and _alive(process)}


def _alive(process: psutil.Process) -> bool:
    try:
        # Python's own bookkeeper of shared memory, one per interpreter; it ends with its parent.
        tracker = any("multiprocessing.resource_tracker" in word for word in process.cmdline())
        return process.status() != psutil.STATUS_ZOMBIE and not tracker
    except psutil.Error:
        return False


def _ahead(process: psutil.Process, before: set[psutil.Process]) -> bool:
    """Whether a warm process of a wider fixture has forked it ahead, for a trial that nobody asked for yet."""
    try:
        return process.parent() in before and Path(f"/proc/{process.pid}/comm").read_text().strip() == SPARE
    except (psutil.Error, OSError):
        return False


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())[:200]
    except psutil.Error:
        return "(gone meanwhile)"


@pytest.fixture(autouse=True)
def nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves processes behind (and end them); those of wider fixtures may stay.

    Only tests marked ``real`` start any, so that only these pay for the search.
    """
    if request.node.get_closest_marker("real") is None:
        yield
        return
    _freeze()
    before = _ours()
    yield
    left = _ours() - before
    deadline = time.monotonic() + DEADLINE_SECONDS
    while left and time.monotonic() < deadline:
        psutil.wait_procs(left, timeout=0.1)
        left = {process for process in left if _alive(process) and not _ahead(process, before)}
    told = [f"{process.pid} {_command(process)}" for process in left]
    for process in left:
        process.kill()
    if told:
        pytest.fail("processes left behind:\n" + "\n".join(told))


@pytest.fixture(scope="module")
def new_processes() -> Iterator[None]:
    """Start new processes instead of forks of one that has imported everything; see :mod:`imported`."""
    with imported.new_processes():
        yield


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty project folder (a root for ``runs/`` and ``mlflow.db``) that is the current one."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "pyproject.toml").write_text('[project]\nname = "toy"\nversion = "0"\n')
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a BERT of a few thousand weights and its tokenizer, as ``from_pretrained`` wants it."""
    import toys

    return toys.tiny_bert(tmp_path_factory.mktemp("models") / "tiny-bert")
