"""Puts a trial's checkpoint to use: loads its model, evaluates it on the test split. Records nothing, knows no search."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sweepkit.study.errors import InputError
from sweepkit.study.study import StudyData
from sweepkit.study.values import Values
from sweepkit.tasks.load import load_task
from sweepkit.tasks.prepared import prepare
from sweepkit.trial.objective import build_trainer
from sweepkit.trial.trial import TrialSpec


def evaluate(study: StudyData, spec: TrialSpec, model: str) -> dict[str, Any]:
    """Return ``metrics`` (``test_…``) and ``rows`` of the model in a trial's ``best/`` folder. Raises InputError."""
    values = Values.of(study, spec.hyperparameters)
    task = load_task(study.task, study.home, values.task, trust_remote_code=study.trust_remote_code)
    prepare(task, study.place.data)
    data = task.splits
    if "test" not in data:
        raise InputError(f"the data has no test split, only {', '.join(data)}")
    trainer = build_trainer(study, spec, task, values, None)
    trainer._load_from_checkpoint(model)  # the Trainer's own way to load weights, adapters included
    found = trainer.evaluate(data["test"], metric_key_prefix="test")
    metrics = {key: float(value) for key, value in found.items() if key.startswith("test_")}
    return {"metrics": metrics, "rows": len(data["test"])}


def load_model(study: StudyData, params: Mapping[str, Any], checkpoint: Path) -> Any:
    """Return the model in a trial's ``best/`` folder, its adapter included, on the device the Trainer takes."""
    values = Values.of(study, params)
    task = load_task(study.task, study.home, values.task, trust_remote_code=study.trust_remote_code)
    with TemporaryDirectory(prefix="sweepkit-") as folder, _quiet():
        spec = TrialSpec(number=0, hyperparameters=params, directory=folder)
        trainer = build_trainer(study, spec, task, values, None)
        trainer._load_from_checkpoint(str(checkpoint))
    assert trainer.model is not None
    return trainer.model.eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from telling which weights are new: of a model that is about to get its trained ones, none are."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
