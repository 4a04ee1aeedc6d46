"""What a command prints of names that others chose."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sweepkit import cli


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
