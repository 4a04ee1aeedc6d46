"""The private names of `datasets` and TRL that tasks depend on; a test holds them to the installed versions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

NAME = "_TEMP_DIR_FOR_TEMP_CACHE_FILES"
"""The global in ``datasets.fingerprint``: where ``map`` writes while caching is disabled."""


COUNT = "_total_train_tokens"
"""How many tokens one of TRL's Trainers has trained on, which it reports but keeps in no checkpoint."""


def keep_counting(trainer: Any) -> None:
    """Let one of TRL's Trainers go on counting tokens where a resumed training stopped, by a field of the Trainer's state."""
    from transformers import TrainerCallback

    class Counting(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            """Take the count from the checkpoint; 0 at the start."""
            setattr(trainer, COUNT, state.num_input_tokens_seen)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            """Keep the count in what checkpoints hold."""
            state.num_input_tokens_seen = getattr(trainer, COUNT)

    if trainer.args.include_num_input_tokens_seen in ("no", False):  # else that field has its own meaning
        trainer.add_callback(Counting())


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
