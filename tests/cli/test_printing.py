"""What a command prints of names that others chose."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from making import toy_study
from sweepkit import cli
from sweepkit.check.study_file import to_yaml


@pytest.mark.parametrize(
    "command", [("check", "no\x07\u202e.yaml"), ("run", "no\x07\u202e.yaml"), ("import", "no\x07\u202e.yaml")]
)
def test_nothing_is_printed_that_a_terminal_would_obey(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["sweep", *command])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    assert ended.value.code == 2 and "no??.yaml" in said.err
    assert not {"\x07", "\u202e"} & set(said.out + said.err)


@pytest.mark.real
def test_an_ascii_terminal_and_a_folder_whose_name_is_no_text_end_no_command(tmp_path: Path) -> None:
    home = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9 \xff"))
    home.mkdir()
    (home / "pyproject.toml").touch()
    study = toy_study(home).model_copy(update={"question": "Größe … 大小?"})
    (home / "toy.yaml").write_text(to_yaml(study.model_copy(update={"tracking": type(study.tracking)()})))
    far = study.task.model_copy(update={"path": "größe-opaque-77aa88bb99cc00dd.py:Task"})
    (home / "far.yaml").write_text(to_yaml(study.model_copy(update={"task": far})))
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment["SOME_TOKEN"] = "opaque-77aa88bb99cc00dd"
    for command, code in (
        (["check", "toy.yaml"], 0),
        (["check", "größe.yaml"], 2),
        (["run", "--help"], 0),
        (["check", "far.yaml"], 1),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "sweepkit", *command], cwd=home, env=environment, capture_output=True, check=False
        )
        said = done.stdout + done.stderr
        assert (done.returncode, b"Traceback" in said or b"Unicode" in said or b"opaque" in said) == (code, False), said
