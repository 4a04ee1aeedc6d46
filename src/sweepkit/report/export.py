"""Writes a trial's model with all it takes to use it and to train it again: ``sweep best STUDY --export DIR``.

Knows no MLflow and no process. No secret gets out: whatever text is written was scrubbed.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sweepkit.report import script
from sweepkit.report.card import card
from sweepkit.study.errors import InputError, StudyNotFound
from sweepkit.study.secrets import of_url, scrub
from sweepkit.study.study import StudyData
from sweepkit.tasks.prepared import digest
from sweepkit.trial.log import TrialLog
from sweepkit.trial.trial import Trial

LEFT_OUT = ("training_args.bin",)
"""Files of a checkpoint that are not exported: a pickle of everything that was set, paths included."""


def export(study: StudyData, rows: Sequence[Trial], row: Trial, folder: Path) -> list[Path]:
    """Write ``model/``, ``hyperparameters.yaml``, ``README.md`` and ``train.py`` of a trial; return what was written.

    The folder is made, whole or not at all. Raises InputError where it exists and is not empty, StudyNotFound where the
    checkpoint is gone.
    """
    if row.schedule:
        raise InputError(
            f"--export: trial {row.number} was trained along a schedule, which no training script with fixed values "
            f"repeats; sweep try {study.name} --trial {row.number} does, and its model lies in {row.checkpoint}"
        )
    best = study.place.trial(row.number) / "best"
    if not best.exists():
        raise StudyNotFound(f"trial {row.number} of {study.name} has no checkpoint here: {best} does not exist")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--export: {folder} exists and is not empty")
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        shutil.copytree(best.resolve(), scratch / "model", ignore=shutil.ignore_patterns(*LEFT_OUT))
        written = [scratch / "model", *_write(study, rows, row, scratch)]
        scratch.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        os.replace(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return [folder / path.name for path in written]


def _write(study: StudyData, rows: Sequence[Trial], row: Trial, folder: Path) -> list[Path]:
    given = _spec(study, row)
    seed = given.get("seed")
    recipe = script.Recipe(
        study=study,
        title=f"Trains trial {row.number} of the study {study.name} again.",
        hyperparameters=row.params,
        seed=study.seed if seed is None else int(seed),
        micro_batch_divisor=int(given.get("micro_batch_divisor", 1)),
        model=folder / "model",
    )
    known = of_url(study.storage) | of_url(study.tracking.uri)
    texts = {
        "hyperparameters.yaml": _yaml(_resolved(recipe, row)),
        "README.md": card(study, rows, row, _facts(recipe, row)),
    }
    for name, text in texts.items():
        (folder / name).write_text(scrub(text, known))
    return [*(folder / name for name in texts), *script.write(recipe, folder)]


def _spec(study: StudyData, row: Trial) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((study.place.trial(row.number) / "spec.json").read_text())
    except FileNotFoundError:
        return {}
    return found


def _resolved(recipe: script.Recipe, row: Trial) -> dict[str, Any]:
    values = recipe.values
    options = {**recipe.study.task.options, **values.task}
    found = {
        "study": recipe.study.name,
        "trial": row.number,
        "seed": recipe.seed,
        "searched": dict(row.params),
        "training": recipe.training,
        "model": dict(values.model),
        "peft": dict(values.peft),
        "task": {"type": recipe.study.task.type or recipe.study.task.path, **options},
    }
    return {name: content for name, content in found.items() if content != {}}


def _facts(recipe: script.Recipe, row: Trial) -> dict[str, Any]:
    place = recipe.study.place
    name = digest(recipe.task)
    about = place.data / name / "about.json"
    rows = json.loads(about.read_text())["rows"] if about.exists() else {}
    log = TrialLog(place.trial(row.number))
    checkpoint, evaluations = log.best_checkpoint, log.evaluations
    deciding = [e for e in evaluations if checkpoint and e.number == checkpoint.evaluation] or evaluations[-1:]
    return {"rows": rows, "digest": name, "seed": recipe.seed, "metrics": dict(deciding[0].metrics) if deciding else {}}


def _yaml(data: Any) -> str:
    from ruamel.yaml import YAML

    writer, text = YAML(), io.StringIO()
    writer.default_flow_style = False
    writer.dump(json.loads(json.dumps(data, default=str)), text)
    return text.getvalue()
