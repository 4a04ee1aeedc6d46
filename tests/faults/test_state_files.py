"""Each file that a study keeps, damaged in each way, under each command: it is named, or the answer is as it was before."""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from making import toy_study
from sweepkit import cli
from sweepkit.check import Checked, convert_numbers, known_values
from sweepkit.check.study_file import to_yaml
from sweepkit.driver import run as driver
from sweepkit.report.answer import FinalTest, write_test
from sweepkit.report.verdict import Candidate, judge, write_verdict
from sweepkit.report.watch import State, write_state
from sweepkit.search.proposer import Proposer
from sweepkit.search.search import Search
from sweepkit.search.storage import open_storage
from sweepkit.study import damage
from sweepkit.study.identity import identify
from sweepkit.study.study import StudyData
from sweepkit.tasks.load import task_class
from sweepkit.trackers.mlflow.state import Delivered
from sweepkit.trackers.mlflow.state import State as Sent
from sweepkit.trial.events import Evaluated, Finished, Started
from sweepkit.trial.log import TrialLog
from sweepkit.trial.trial import TrialSpec

pytestmark = pytest.mark.slow

TRIALS = 4


def trained(study: StudyData, *, left: bool = False) -> None:
    """Record trials as a driver does, training none; the last one is ``left`` unfinished by a driver that died."""
    identify(study.place, study)
    search = Search(study, open_storage(study.place, study), Proposer(study, known_values(study)))
    for number in range(TRIALS):
        asked = search.ask()
        assert asked is not None
        folder = study.place.trial(number)
        with TrialLog(folder) as log:
            log.append(Started(trial=number, at=time.time()))
            spec = TrialSpec(number=number, hyperparameters=asked.params, directory=str(folder))
            (folder / "spec.json").write_text(spec.to_json())
            for step in (4, 8):
                metrics = {"eval_score": 1 / (number + step)}
                said = Evaluated(
                    trial=number, at=time.time(), number=step // 4, step=step, epoch=step / 4,
                    metrics=metrics, values=tuple(metrics.values()),
                )  # fmt: skip
                log.append(said)
                search.report(said)
            if not (left and number == TRIALS - 1):
                end = Finished(trial=number, at=time.time(), ending="complete", values=said.values, seconds=1.0)
                log.append(end)
                search.tell(end)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project with a finished study of four trials that was confirmed and tested, and with another study."""
    root = tmp_path_factory.mktemp("whole")
    (root / "pyproject.toml").touch()
    for name in ("toy", "other"):
        study = convert_numbers(toy_study(root, name=name, budget={"trials": TRIALS}))
        (root / f"{name}.yaml").write_text(to_yaml(study))
        trained(study)
        for file in ("spent_json", "data_json"):
            getattr(study.place, file).write_text("{}")
        study.place.spent_json.write_text('{"seconds": 10.0, "slot_seconds": 20.0}')
        study.place.data_json.write_text('{"classes": {"validation": [3, 5]}}')
        write_state(study.place, State("done", "all trials of the budget are done"))
        write_test(study.place, FinalTest(0, "2026-01-01T00:00:00", 8, {"test_score": 0.5}))
        seeds = [Candidate(number=n, values=(0.5 - n / 10, 0.4, 0.3)) for n in range(2)]
        write_verdict(study.place, judge(seeds, metric="eval_score", direction="maximize", best=0))
        sent = Sent("study", {0: Delivered(run_id="r0", offset=3)})
        sent.path = study.place.mlflow_json
        sent.save()
        (study.place.folder / "lock").touch()
    return root


Damage = Callable[[Path], object]


def cut(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def later(file: Path) -> None:
    if file.suffix == ".json":
        file.write_text(json.dumps({**json.loads(file.read_text()), "later": 1}))
    else:
        with file.open("a") as stream:
            stream.write('{"op_code":99,"worker_id":"w","kind":"later","trial":1,"at":0}\n')


def folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGE: dict[str, Damage] = {
    "empty": lambda file: file.write_bytes(b""),
    "cut": cut,
    "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "bytes": lambda file: file.write_bytes(b"\xff\xfe\x00garbage\n\x80\n"),
    "a list": lambda file: file.write_text("[]\n"),
    "a number": lambda file: file.write_text("3\n"),
    "no keys": lambda file: file.write_text("{}\n"),
    "gone": Path.unlink,
    "of a later version": later,
    "a folder": folder,
}
FILES = {
    "study.json", "spent.json", "mlflow.json", "outcome.json", "data.json", "test.json", "confirm/verdict.json",
    "optuna.journal", "trials/0001/events.jsonl", "trials/0001/spec.json", "lock",
}  # fmt: skip
COMMANDS = {
    "list": ["list"],
    "show": ["show", "toy", "--once"],
    "best": ["best", "toy", "--json"],
    "enqueue": ["enqueue", "toy", "learning_rate=1e-3"],
    "sync": ["sync", "toy"],
    "run": ["run", "toy.yaml"],
}


@dataclass(frozen=True)
class Said:
    """How a command ended, and all it said."""

    code: int
    text: str


@pytest.fixture
def said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> object:
    """Return a function that runs a command line in a project, in this process."""

    def run(project: Path, *arguments: str) -> Said:
        damage.note.cache_clear()
        caplog.clear()
        monkeypatch.chdir(project)
        monkeypatch.setattr(sys, "argv", ["sweep", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        text = f"{out}{err}{caplog.text}".replace(str(project), ".")
        return Said(int(ended.value.code or 0), re.sub(r"\d\d:\d\d:\d\d|[\d.]+ m?s$", "…", text, flags=re.MULTILINE))

    return run


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials train here: none is left to train, so that no process is needed."""
    run_checked = driver.run_checked

    def run(checked: Checked, **keys: Any) -> driver.Outcome:
        task = task_class(checked.study.task, checked.study.home)
        return run_checked(checked, **keys, instead=driver.Replacements(task=task))

    monkeypatch.setattr(driver, "run_checked", run)


@pytest.fixture(scope="module")
def sound() -> dict[str, Said]:
    """Return what each command says of the study as it was written, once that was asked for."""
    return {}


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_file_is_named_or_changes_nothing(
    name: str, how: str, whole: Path, sound: dict[str, Said], tmp_path: Path, said: Callable[..., Said]
) -> None:
    failures = []
    for command, arguments in COMMANDS.items():
        project = tmp_path / command
        shutil.copytree(whole, project)
        if command not in sound:
            sound[command] = said(shutil.copytree(whole, tmp_path / "sound", dirs_exist_ok=True), *arguments)
        DAMAGE[how](project / "runs/toy" / name)
        found = said(project, *arguments)
        named = Path(name).name in found.text and "SWEEPKIT_DEBUG" not in found.text
        old = how == "gone" and name in ("outcome.json", "spent.json", "test.json")  # as before there was one
        if not (named or old or found == sound[command]) or found.code not in (0, 1, 2):
            failures.append(f"{command}: {found.code} {found.text}")
        if command == "list" and "other" not in found.text:
            failures.append(f"list lost the other study: {found.text}")
    assert not failures, "\n".join(failures)


IN_THE_WAY = (
    *("identity.lock", "spent.lock", "mlflow.lock", "warm.log", "inspect.log", "report.html", "scratch", "trials"),
    *("confirm", "trials/0001/console.log", "trials/0001/best", "trials/0001/last", "../.data", "../.mlflow.lock"),
    *("../../mlflow.db", "../.archive", "task.pickle", "ui.log", "seal.json"),
)


@pytest.mark.parametrize("what", ["file", "folder", "link to nowhere"])
@pytest.mark.parametrize("name", IN_THE_WAY)
def test_what_lies_in_the_way_of_a_file_is_named_or_changes_nothing(
    name: str, what: str, whole: Path, tmp_path: Path, said: Callable[..., Said]
) -> None:
    project = shutil.copytree(whole, tmp_path / "project")
    place = project / "runs/toy" / name
    shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    if what == "file":
        place.write_bytes(b"\0mine")
    elif what == "folder":
        (place / "mine").mkdir(parents=True)
    else:
        place.symlink_to(tmp_path / "nowhere")
    for arguments in (*COMMANDS.values(), ["report", "toy"]):
        found = said(project, *arguments)
        assert found.code in (0, 1, 2) and "SWEEPKIT_DEBUG" not in found.text, (arguments, found)
    assert not (tmp_path / "nowhere").exists()


def test_a_file_in_the_place_of_a_trials_folder_changes_nothing_that_is_known_of_it(
    whole: Path, tmp_path: Path, said: Callable[..., Said]
) -> None:
    project = shutil.copytree(whole, tmp_path / "odd")
    before = said(project, "show", "toy", "--once")
    shutil.rmtree(project / "runs/toy/trials/0001")
    (project / "runs/toy/trials/0001").write_text("")
    assert said(project, "show", "toy", "--once") == before
    found = said(project, "report", "toy")
    assert found.code == 0 and "trials/0001/events.jsonl cannot be read (Not a directory)" in found.text
