"""The private names of `datasets` that prepared data depends on; a test holds them to the installed version."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

NAME = "_TEMP_DIR_FOR_TEMP_CACHE_FILES"
"""The global in ``datasets.fingerprint``: where ``map`` writes while caching is disabled."""


@contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """Let ``map`` write its temporary files into ``folder`` while caching is disabled.

    By default they go to a folder under /tmp that only an exit handler removes, which neither forked nor killed processes
    run.
    """
    from datasets import fingerprint

    before = getattr(fingerprint, NAME)
    setattr(fingerprint, NAME, SimpleNamespace(name=str(folder)))
    try:
        yield
    finally:
        setattr(fingerprint, NAME, before)
