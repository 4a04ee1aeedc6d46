"""The studies that come with sweepkit: each is without a mistake, and a shortened run ends with an answer."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from making import spec, sweep
from sweepkit.load import load_study
from sweepkit.objective import build_trainer
from sweepkit.tasks import load_task
from sweepkit.tasks.prepared import prepare
from sweepkit.values import Values

STUDIES = Path(__file__).parents[2] / "studies"
NAMES = sorted(file.parent.name for file in STUDIES.glob("*/study.yaml"))
OFFLINE = [name for name in NAMES if name != "imdb"]
SHORT = ("--set", "budget.trials=2", "--set", "training.max_steps=4", "--set", "confirm=null")


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_study_has_no_mistake(name: str) -> None:
    assert load_study(STUDIES / name / "study.yaml").name == name


@pytest.mark.slow
@pytest.mark.parametrize("name", OFFLINE)
def test_a_shortened_run_of_a_shipped_study_ends_with_an_answer(name: str, project: Path) -> None:
    shutil.copytree(STUDIES, project / "studies")
    extra = ("--set", "pruner.type=none", "--set", "training.eval_strategy=steps", "--set", "training.eval_steps=2")
    process = sweep("run", f"studies/{name}", *SHORT, *extra, cwd=project)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    assert "2 complete" in output


def test_weights_saved_under_other_names_than_the_models_are_read_back(project: Path) -> None:
    study = load_study(STUDIES / "digits" / "study.yaml").model_copy(update={"name": "toy"}).at(project)
    task = load_task(load_study(STUDIES / "digits" / "study.yaml").task, STUDIES / "digits")
    prepare(task, study.place.data)
    made = [
        build_trainer(study, spec(project, number, {}, seed=number), task, Values.of(study, {}), None)
        for number in (1, 2)
    ]
    first, second = made
    first.save_model(str(project / "saved"))
    second._load_from_checkpoint(str(project / "saved"))
    assert all((second.model.state_dict()[name] == value).all() for name, value in first.model.state_dict().items())
