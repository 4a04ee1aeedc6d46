"""What the tests of the check share."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import pytest

from sweepkit.check.fields import child, facts
from sweepkit.study.errors import InputError


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let names of the hub be downloaded, as far as a check can tell; it asks no network itself."""
    monkeypatch.delenv("HF_HUB_OFFLINE")


@pytest.fixture(scope="module", autouse=True)
def new_children(new_processes: None) -> None:
    """Let a new child process answer, as in a check."""


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answer here, where it is faster, what a check would ask a child process."""

    def answers(questions: Sequence[tuple[str, ...]]) -> list[Any]:
        found = [child.answer(*question) for question in questions]
        return [InputError(each["error"]) if "error" in each else each["facts"] for each in found]

    monkeypatch.setattr(facts, "_from_child", answers)
    monkeypatch.setattr(sys, "path", [*sys.path])
