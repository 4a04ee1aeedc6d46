"""The private names that tasks depend on are in the installed versions, and do what they are used for; see also test_trl."""

from __future__ import annotations

from pathlib import Path

import datasets
from datasets import fingerprint

from sweepkit.tasks import private


def test_datasets_still_has_the_private_name_and_writes_where_it_says(tmp_path: Path) -> None:
    gone = f"datasets {datasets.__version__}: fingerprint has no {private.NAME} any more; see sweepkit.tasks.private"
    assert hasattr(fingerprint, private.NAME), gone
    with private.temporary_files_in(tmp_path):
        assert Path(fingerprint.get_temporary_cache_files_directory()) == tmp_path, gone
