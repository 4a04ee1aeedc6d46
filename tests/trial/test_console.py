"""A child's log keeps the beginning and the end of what was printed, and says exactly how much it left out."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sweepkit.trial.console import PART_BYTES, Console


def said(log: Path, *pieces: bytes) -> bytes:
    """Send pieces through a child's pipe, each read as the warm process does; return the log."""
    console = Console()
    os.write(console.writing, os.fsencode(log) + b"\0")
    for piece in pieces:
        for begin in range(0, len(piece), 1 << 15):
            os.write(console.writing, piece[begin : begin + (1 << 15)])
            console.read()
    os.close(console.writing)
    console.close()
    return log.read_bytes()


def left_out(text: bytes) -> int:
    [number] = re.findall(rb"\n\[sweepkit: ([\d,]+) bytes of output left out here\]\n", text)
    return int(number.replace(b",", b""))


def test_what_fits_is_kept_as_it_is(tmp_path: Path) -> None:
    assert (
        said(tmp_path / "log", b"caf\xc3\xa9 \xff\x00\x1b[31m", b"", b"no end") == b"caf\xc3\xa9 \xff\x00\x1b[31mno end"
    )
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


def test_of_one_huge_line_the_beginning_and_the_end_are_kept_and_the_rest_is_counted(tmp_path: Path) -> None:
    line = b"first" + bytes(40_000_000) + b"last"
    found = said(tmp_path / "log", line)
    assert len(found) < 3 * PART_BYTES and found.startswith(b"first") and found.endswith(b"last")
    rule = found.index(b"\n[sweepkit:")
    assert rule == PART_BYTES
    assert len(found) - len(found[rule:].split(b"]\n")[0]) - 2 + left_out(found) == len(line)


def test_the_next_attempt_goes_on_counting(tmp_path: Path) -> None:
    log = tmp_path / "log"
    first = left_out(said(log, b"a" * 10_000_000))
    before = len(log.read_bytes())
    found = said(log, b"b" * 10_000_000)
    assert found.startswith(b"a" * PART_BYTES) and found.endswith(b"b" * PART_BYTES)
    assert left_out(found) + len(found) == first + before + 10_000_000 + (len(str(left_out(found))) - len(str(first)))


def test_a_log_that_cannot_be_written_costs_the_output_and_nothing_else(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    (tmp_path / "log").symlink_to(outside)
    assert said(tmp_path / "log", b"text", str(tmp_path / "planted").encode() + b"\0text") == b"mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "outside"]
