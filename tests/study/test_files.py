"""Text from outside as files and messages take it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from sweepkit.study.files import describe, open_own, write_whole


def _exit() -> NoReturn:
    sys.exit("no words")


def _interrupt() -> NoReturn:
    raise KeyboardInterrupt


def _fail() -> NoReturn:
    raise ValueError("no words")


@pytest.mark.parametrize("way", [_exit, _interrupt, _fail])
def test_an_exception_whose_message_cannot_be_asked_for_has_a_name(way: object) -> None:
    mute = type("Mute", (Exception,), {"__str__": lambda self: way()})  # type: ignore[operator]  # one of the three
    assert describe(mute()) == "Mute: Mute, whose message cannot be shown"


def test_what_is_written_is_its_owners_alone(tmp_path: Path) -> None:
    write_whole(tmp_path / "study.json", "{}")
    os.close(open_own(tmp_path / "events.jsonl", os.O_WRONLY))
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_half_of_a_surrogate_pair_costs_a_character_and_no_file(tmp_path: Path) -> None:
    write_whole(tmp_path / "page.html", "caf\xe9 \ud800!")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == "caf\xe9 ?!"
