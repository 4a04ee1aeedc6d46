"""``sweep best``: predictions of the best model to a file, its test metrics, and its way to the Hub, a real server of ours."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import toys
from sweepkit.cli import app
from sweepkit.report.answer import FinalTest, read_test, write_test
from sweepkit.report.hub import push
from sweepkit.report.rows import read
from sweepkit.study.errors import InputError, StudyFailed
from sweepkit.study.study import StudyData
from trained import ran, study_file, written

pytestmark = pytest.mark.real
ROWS = [{"text": text, "label": label} for text, label in toys.messages(16)]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> StudyData:
    project = tmp_path_factory.mktemp("best")
    (project / "pyproject.toml").touch()
    written(project, {"train": ROWS, "validation": ROWS, "test": ROWS[:6]})
    data = {split: f"{split}.jsonl" for split in ("train", "validation", "test")}
    return ran(study_file(project, "text-classification", tiny_bert, task={"data": data}))[0]


def best(study: StudyData, monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    monkeypatch.chdir(study.home)
    result = CliRunner().invoke(app, ["best", "study.yaml", *words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_the_test_split_is_predicted_once_for_one_trial_and_recorded(
    study: StudyData, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = best(study, monkeypatch, "--predict", "out.csv")
    found = read_test(study.place)
    assert found is not None and (found.trial, found.rows) == (0, 6)
    assert said.startswith("wrote out.csv: 6 rows by trial 0\n") and "test_accuracy" in said
    lines = (study.home / "out.csv").read_text().splitlines()
    assert lines[0] == "text,label,prediction,probability" and len(lines) == 7
    with pytest.raises(InputError, match=r"out\.csv exists; --predict names the file to write, --data the one to read"):
        best(study, monkeypatch, "--predict", "out.csv")
    write_test(study.place, FinalTest(7, found.at, 6, {}))
    with pytest.raises(InputError, match=r"the test split was used on .* for trial 7"):
        best(study, monkeypatch, "--predict", "more.csv")
    assert not (study.home / "more.csv").exists()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--predict", "out.xlsx"), r"ends in \.csv or \.jsonl, got out\.xlsx"),
        (("--predict", "nowhere/out.csv"), "there is no folder"),
        (("--predict", "new.csv", "--data", "gone.csv"), "there is no file gone.csv"),
        (("--data", "train.jsonl"), "--data goes with --predict"),
        (("--private",), "--private with --push"),
    ],
)
def test_what_cannot_be_written_or_read_is_said(
    study: StudyData, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], why: str
) -> None:
    with pytest.raises(InputError, match=why):
        best(study, monkeypatch, *words)


class Hub(BaseHTTPRequestHandler):
    """What huggingface_hub asks of the Hub while it uploads, answered as the Hub does."""

    files: dict[str, bytes] = {}
    status = 200

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        answer: dict[str, Any] = {"errors": [], "warnings": []}
        if self.path == "/api/repos/create":
            type(self).files["created"] = body
            answer = {"url": f"http://{self.headers['Host']}/me/{json.loads(body)['name']}"}
        elif "/preupload/" in self.path:
            asked = json.loads(body)["files"]
            answer = {
                "files": [{"path": each["path"], "uploadMode": "regular", "shouldIgnore": False} for each in asked]
            }
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    type(self).files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            answer = {"commitUrl": f"http://{self.headers['Host']}/me/spam/commit/1", "commitOid": "1"}
        self.answer(answer)

    def do_GET(self) -> None:
        self.answer({"name": "me", "type": "user", "id": "me/spam", "siblings": [], "sha": "0"})

    def answer(self, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(self.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    from huggingface_hub import constants

    handler = type("_Hub", (Hub,), {"files": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")
    yield handler
    server.shutdown()
    server.server_close()


def test_the_model_its_card_and_its_values_are_pushed(study: StudyData, hub: type[Hub]) -> None:
    rows = read(study)
    assert push(study, rows, rows[0], "me/spam", private=True).endswith("/me/spam")
    assert b"private" in hub.files.pop("created")
    assert {
        "README.md",
        "hyperparameters.yaml",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    } <= hub.files.keys()
    assert "training_args.bin" not in hub.files
    folder = study.place.trial(0) / "best"
    assert hub.files["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    card = hub.files["README.md"].decode()
    assert "`me/spam` loads with `from_pretrained`" in card and "train.py" not in card


def test_a_hub_that_refuses_or_is_not_there_gets_one_sentence(
    study: StudyData, hub: type[Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    rows = read(study)
    hub.status = 403
    with pytest.raises(StudyFailed, match=r"^the Hub at http://127.* refused me/spam: .*403"):
        push(study, rows, rows[0], "me/spam")
    with pytest.raises(InputError, match=r"^--push: Repo id"):
        push(study, rows, rows[0], "a/b/c d")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(StudyFailed, match=r"^the Hub at http://127\.0\.0\.1:9 cannot be reached"):
        push(study, rows, rows[0], "me/spam")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(InputError, match="there is no Hub token"):
        push(study, rows, rows[0], "me/spam")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE forbids it"):
        push(study, rows, rows[0], "me/spam")
