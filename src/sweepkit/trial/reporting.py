"""The trackers of ``training.report_to`` beside MLflow, by transformers' own callbacks: one run for each trial."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import Trainer
from transformers.integrations.integration_utils import get_reporting_integration_callbacks

from sweepkit.study.study import StudyData
from sweepkit.tasks.arguments import reporters
from sweepkit.trial.trial import TrialSpec

_RUN = "wandb-run-id"
"""File in a trial's folder with the id of its W&B run, which a later attempt continues."""


@contextmanager
def reporting(trainer: Trainer, study: StudyData, spec: TrialSpec, asked: Any) -> Iterator[None]:
    """Let the trackers in ``report_to`` follow what is trained inside, and close them however that ends."""
    names = reporters(asked)
    if not names or spec.rank > 0:
        yield
        return
    folder = Path(spec.directory)
    folder.mkdir(parents=True, exist_ok=True)
    environment = _environment(study, folder)
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    trainer.args.report_to = names
    trainer.args.run_name = f"{folder.parent.name.removesuffix('s')} {spec.number}"
    if getattr(trainer.args, "project", None) == "huggingface":  # the default, of Trackio
        trainer.args.project = study.name
    made = [kind() for kind in get_reporting_integration_callbacks(names)]
    for callback in made:
        trainer.add_callback(callback)
    try:
        yield
    finally:
        failed = sys.exc_info()[0] is not None
        for callback in made if failed else []:  # else the Trainer did
            callback.on_train_end(trainer.args, trainer.state, trainer.control, model=trainer.model)
        if "wandb" in names:
            wandb: Any = sys.modules["wandb"]
            wandb.finish()
            wandb.teardown()  # it reads the environment once, and the next trial of this process has another
        for name, value in before.items():
            del os.environ[name]
            os.environ |= {} if value is None else {name: value}


def _environment(study: StudyData, folder: Path) -> Mapping[str, str]:
    """Return what the trackers read from the environment: a run of its own for the trial, found with its study's."""
    run = folder / _RUN
    if not run.exists():
        run.write_text(uuid.uuid4().hex)
    return {
        "WANDB_RUN_GROUP": os.environ.get("WANDB_RUN_GROUP", study.name),
        "WANDB_DIR": str(folder),
        "WANDB_RUN_ID": run.read_text(),
        "WANDB_RESUME": "allow",
        "TENSORBOARD_LOGGING_DIR": str(folder / "tensorboard"),
    }
