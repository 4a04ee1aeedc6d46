"""What the tests of the check share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let names of the hub be downloaded, as far as a check can tell; it asks no network itself."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
