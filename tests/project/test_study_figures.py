"""The figures in the studies' READMEs are those of the runs that are recorded beside them, in ``result*.json``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RECORDED = sorted({path.parent for path in (ROOT / "studies").glob("*/result*.json")})
FIGURE = re.compile(r"(?<![\w.,])\d[\d,]*(?:\.\d+(?:e-?\d+)?|e-?\d+|,\d{3})(?![\w%])")
"""A number with a point, an exponent or a comma: whole numbers below a thousand are counts of the study file."""
SMALLEST = 3
"""Figures in an answer, at least."""


def numbers(node: Any) -> Iterator[float]:
    if isinstance(node, (dict, list)):
        for each in node.values() if isinstance(node, dict) else node:
            yield from numbers(each)
    elif isinstance(node, (int, float)):
        yield float(node)


def unfounded(text: str, study: Path) -> list[str]:
    """Return the figures of a text that round none of the study's recorded numbers."""
    found = {each for path in study.glob("result*.json") for each in numbers(json.loads(path.read_text()))}
    shown = FIGURE.findall(text)
    assert len(shown) >= SMALLEST

    def told(figure: str) -> bool:
        mantissa, _, exponent = figure.replace(",", "").partition("e")
        unit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
        return any(abs(float(figure.replace(",", "")) - each) <= unit * 0.5001 for each in found)

    return [figure for figure in shown if not told(figure)]


@pytest.mark.parametrize("study", RECORDED, ids=lambda study: study.name)
def test_the_figures_of_an_answer_are_those_of_the_recorded_run(study: Path) -> None:
    answer = (study / "README.md").read_text().split("**Answer.**", 1)[1]
    assert unfounded(answer, study) == []


def test_the_quickstarts_ending_in_the_readme_is_that_of_the_recorded_run() -> None:
    (ending,) = re.findall(r"^spam  done.*?^      checkpoint", (ROOT / "README.md").read_text(), re.M | re.S)
    assert unfounded(re.sub(r"0\.\d+ better than", "better than", ending), ROOT / "studies" / "spam") == []


def test_a_figure_that_no_run_had_is_found() -> None:
    assert unfounded("0.9001 of 58,570 weights at 1.5e-3", ROOT / "studies" / "digits") == ["0.9001", "58,570"]
