"""Predicts with a trial's best model in a process of its own, and records where that used the study's test split."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sweepkit.backends.local.executor import Executor
from sweepkit.report.answer import FinalTest, read_test, write_test
from sweepkit.study.errors import InputError, StudyFailed
from sweepkit.study.paths import BEST, SPEC
from sweepkit.study.study import StudyData
from sweepkit.trial.trial import Trial, TrialSpec

FORMATS = (".csv", ".jsonl")


def predict(study: StudyData, row: Trial, output: Path, data: Path | None) -> dict[str, Any]:
    """Write what a trial's model predicts for the test split, or for a file, to ``output``; return ``metrics`` and ``rows``.

    A study's test split is for one trial: its first use is recorded, as after a confirmation. Raises InputError where it was
    used for another one, StudyFailed where the model cannot predict.
    """
    if output.suffix not in FORMATS:
        raise InputError(f"--predict: the file to write ends in {' or '.join(FORMATS)}, got {output.name}")
    if output.exists():
        raise InputError(f"--predict: {output} exists; --predict names the file to write, --data the one to read")
    if not output.absolute().parent.is_dir():
        raise InputError(f"--predict: there is no folder {output.absolute().parent}")
    if data is not None and not data.exists():
        raise InputError(f"--data: there is no file {data}")
    used = read_test(study.place) if data is None else None
    if used is not None and used.trial != row.number:
        raise InputError(
            f"--predict: the test split was used on {used.at} for trial {used.trial}, and is for one trial only; give trial "
            f"{row.number} other rows with --data"
        )
    console = study.place.test_log
    best = (study.place.trial(row.number) / BEST).resolve()
    with TemporaryDirectory(prefix="sweepkit-") as temporary, Executor(study) as executor:
        path = Path(temporary) / SPEC
        spec = TrialSpec(number=row.number, hyperparameters=row.params, directory=temporary, drawn=row.drawn)
        path.write_text(spec.to_json())
        files = {"output": str(output.absolute()), "data": data and str(data.absolute())}
        answer = executor.job("predict", console=console, spec=str(path), model=str(best), **files)
    if "error" in answer:
        raise StudyFailed(f"trial {row.number} cannot predict: {answer['error']} ({console})")
    if data is None and used is None:
        write_test(study.place, FinalTest(row.number, datetime.now().isoformat(timespec="seconds"), **answer))
    return answer
