"""What a pointer over a trial says. Knows no figure."""

from __future__ import annotations

from html import escape

from sweepkit.study import words
from sweepkit.study.files import first_line
from sweepkit.trial.trial import Trial

LINES = 14


def of_trial(row: Trial) -> str:
    """Return a trial's number, ending, values and parameters, as lines of HTML."""
    values = ", ".join(words.value(value) for value in row.values)
    lines = [f"<b>trial {row.number}</b> · {row.ending}{f' · {values}' if values else ''}"]
    if row.cause:
        lines.append(escape(first_line(row.cause)[:90]))
    lines += [f"{escape(name)} = {escape(words.setting(value))}" for name, value in row.params.items()]
    more = len(lines) - LINES
    return "<br>".join([*lines[:LINES], *([f"and {more} more"] if more > 0 else [])])
