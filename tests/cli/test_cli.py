"""Holds the command line: help everywhere, exit codes, and what needs no study."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from commands import cpu_seconds, sweep, typed
from sweepkit.check.study_file import read_study
from sweepkit.cli import app
from sweepkit.tasks.kinds import KINDS

README = Path(__file__).parents[2] / "README.md"


def parameters() -> Iterator[tuple[str, Any]]:
    """Yield every argument and option with the command line that it belongs to."""
    root: Any = get_command(app)
    yield from (("sweep", parameter) for parameter in root.params)
    for name, command in root.commands.items():
        yield from ((f"sweep {name}", parameter) for parameter in command.params)


COMMANDS = sorted(get_command(app).commands)  # type: ignore[attr-defined]  # what Typer makes of several commands is a group


def test_the_commands_are_the_promised_ones() -> None:
    promised = "run tune check show list best report ui schema new task import try enqueue stop retry sync replay"
    assert sorted(promised.split()) == COMMANDS


def test_every_command_argument_and_option_has_help() -> None:
    root: Any = get_command(app)
    silent = [name for name, command in root.commands.items() if not (command.help or "").strip()]
    silent += [f"{owner} {parameter.name}" for owner, parameter in parameters() if not getattr(parameter, "help", None)]
    assert silent == []


@pytest.mark.parametrize("command", COMMANDS)
def test_the_readme_names_every_command(command: str) -> None:
    assert re.search(rf"\bsweep {command}\b", README.read_text())


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_explains_itself_in_its_users_words(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = sweep(*command.split(), "--help")
    assert (shown.exit_code, "Usage" in shown.output) == (0, True)
    assert not re.search(r"[{}]|\[bool\]|<[a-z]|None|[A-Z]{2,}\s+(TEXT|PATH|INTEGER|FLOAT)\b", shown.output)
    assert max(map(len, shown.output.splitlines())) <= 80


@pytest.mark.real
def test_help_is_there_at_once() -> None:
    assert cpu_seconds("--help")[0] < 0.5


def test_the_version_is_the_packages(project: Path) -> None:
    assert re.fullmatch(r"sweepkit \d+\.\d+\.\d+\S*\n", sweep("--version").output)


@pytest.mark.parametrize("command", [(), ("best",), ("check",)])
def test_help_shows_no_type_beside_flags(command: tuple[str, ...]) -> None:
    assert "bool" not in sweep(*command, "--help").output


def test_paragraphs_of_help_are_wrapped_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    assert any(
        "After a confirmation" in line and "first trial of a front." in line
        for line in sweep("best", "--help").output.splitlines()
    )


@pytest.mark.parametrize("command", ["new", "import"])
def test_help_lists_every_kind_of_task(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    assert ", ".join(KINDS) in sweep(command, "--help").output


@pytest.mark.real
def test_a_wrong_option_ends_with_2(project: Path) -> None:
    assert typed("show", "toy", "--colour").returncode == 2


UNEXPECTED = """
import sys
from sweepkit import cli

def unexpected():
    raise KeyError("x")

cli.app = unexpected
cli.main()
"""


@pytest.mark.real
def test_the_unexpected_ends_with_1_and_says_how_to_see_more() -> None:
    short, long = (
        subprocess.run(
            [sys.executable, "-c", UNEXPECTED],
            env={**os.environ, "SWEEPKIT_DEBUG": debug},
            capture_output=True,
            text=True,
        )
        for debug in ("", "1")
    )
    assert (short.returncode, long.returncode) == (1, 1)
    assert short.stderr == "error: KeyError: 'x'\nrun the command with SWEEPKIT_DEBUG=1 to see where this was raised\n"
    assert "Traceback" in long.stderr


def test_schema_is_json_and_explain_is_text(project: Path) -> None:
    assert json.loads(sweep("schema").output)["title"] == "sweepkit study"
    assert sweep("schema", "--output", "schema.json").output == "wrote schema.json\n"
    assert json.loads((project / "schema.json").read_text())["type"] == "object"
    assert "objective" in sweep("schema", "--explain").output


SOURCES = {
    "dpo": ("data.csv", "prompt,chosen,rejected\nfree,prize,bus\n"),
    "sentence-similarity": ("data.csv", "anchor,positive\nfree prize,win cash\n"),
    "image-classification": ("data/cat/1.png", ""),
    "multi-label-classification": ("data.jsonl", '{"text": "free prize", "label": ["a", "b"]}\n'),
    "question-answering": (
        "data.jsonl",
        '{"question": "who", "context": "a b", "answers": {"text": ["a"], "answer_start": [0]}}\n',
    ),
    "seq2seq": ("data.csv", "source,target\nfree prize,win\n"),
    "token-classification": ("data.jsonl", '{"words": ["free", "prize"], "tags": ["O", "B-X"]}\n'),
}
"""Kind → file and its content, where a csv file with a text and a label will not do."""


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_new_writes_a_study_that_passes_its_check(project: Path, kind: str) -> None:
    model = project / "model"
    model.mkdir()
    config = {
        "model_type": {"causal-lm": "gpt2", "dpo": "gpt2", "sft": "gpt2", "image-classification": "vit"}.get(
            kind, "bert"
        )
    }
    (model / "config.json").write_text(json.dumps(config))
    source, content = SOURCES.get(kind, ("data.csv", "text,label\nfree prize,1\nsee you,0\n"))
    (project / source).parent.mkdir(parents=True, exist_ok=True)
    (project / source).write_text(content)
    if kind == "image-classification":
        source = "data"
        (project / "data/dog").mkdir()
        (project / "data/dog/1.png").touch()
    made = sweep("new", "studies/mine", "--kind", kind, "--data", source, "--model", "model")
    assert (made.exit_code, made.exception) == (0, None)
    assert sorted(path.name for path in (project / "studies" / "mine").iterdir()) == [
        "README.md",
        "study.schema.json",
        "study.yaml",
    ]
    checked = sweep("check", "studies/mine/study.yaml")
    assert (checked.exception, checked.exit_code) == (None, 0)


def test_new_takes_the_metric_it_is_told(project: Path) -> None:
    (project / "my.csv").write_text("text,label\n" + "free prize,spam\nsee you,ham\n" * 5)
    (project / "model").mkdir()
    sweep("new", "mystudy", "--data", "my.csv", "--model", "model", "--metric", "f1")
    found = read_study("mystudy/study.yaml")
    assert (found.name, found.objective.metric, found.objective.direction) == ("mystudy", "eval_f1", "maximize")
    assert found.task.options == {
        "model": "../model",
        "data": {"path": "../my.csv"},
        "text": "text",
        "label": "label",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "my.csv", "--model", "m"], "mystudy exists already and is not overwritten; choose another name"),
        (["--data", "my.cvs", "--model", "m"], "--data: there is no file or folder my.cvs; did you mean my.csv?"),
        (
            ["--model", "m"],
            "DATA: there is no file or folder mystudy here, and on the hub: task.data: mystudy cannot be read: "
            "ConnectionError: Couldn't reach 'mystudy' on the Hub (OfflineModeIsEnabled); --kind writes the study without "
            "reading it",
        ),
    ],
)
def test_new_refuses_and_writes_nothing(project: Path, arguments: list[str], message: str) -> None:
    (project / "my.csv").write_text("text,label\n")
    if "exists" in message:
        (project / "mystudy").mkdir()
        (project / "mystudy" / "notes.txt").write_text("mine")
    before = sorted(project.rglob("*"))
    assert str(sweep("new", "mystudy", *arguments).exception) == message
    assert sorted(project.rglob("*")) == before
