"""Whole studies on tiny models: every sampler and pruner, conditional parameters, LoRA, other people's Trainers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import toys
from making import toy_study
from sweepkit.backends.local import LocalBackend
from sweepkit.backends.local.executor import Executor
from sweepkit.backends.slots import Slot
from sweepkit.check import check
from sweepkit.check.study_file import load_study, to_yaml
from sweepkit.cli import app
from sweepkit.driver.run import run
from sweepkit.driver.session import Setup, StudySession
from sweepkit.report.watch import Watcher
from sweepkit.search.proposer import Proposer
from sweepkit.search.search import Search
from sweepkit.search.storage import open_storage
from sweepkit.study.identity import identify
from sweepkit.study.study import StudyData
from sweepkit.trackers import tracker_of
from sweepkit.trackers.courier import Courier
from sweepkit.trial.events import Started
from sweepkit.trial.log import TrialLog
from sweepkit.trial.trial import Trial

pytestmark = pytest.mark.real


SAMPLERS: dict[str, dict[str, Any]] = {
    "random": {},
    "tpe": {"n_startup_trials": 2},
    "gp": {"n_startup_trials": 2},
    "cmaes": {"n_startup_trials": 2},
    "qmc": {"qmc_type": "halton"},
    "grid": {},
    "nsga2": {"population_size": 4},
}
PRUNERS: dict[str, dict[str, Any]] = {
    "none": {},
    "median": {"n_startup_trials": 2},
    "percentile": {"percentile": 25.0, "n_startup_trials": 2},
    "asha": {"min_resource": 1, "reduction_factor": 2},
    "hyperband": {"min_resource": 1, "max_resource": 3, "reduction_factor": 3},
    "threshold": {"lower": 0.5},
    "patient": {"wrapped_pruner": {"type": "median", "n_startup_trials": 2}, "patience": 1},
    "wilcoxon": {"p_threshold": 0.2, "n_startup_steps": 1},
}

LONG = {"num_train_epochs": 4}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "pyproject.toml").touch()
    return folder


@pytest.fixture(scope="module")
def executor(home: Path) -> Iterator[Executor]:
    """One warm process for many studies of the same task."""
    with Executor(toy_study(home, training=LONG), [Slot(), Slot()]) as executor:
        executor.wait_ready()
        yield executor


def run_on(executor: Executor, study: StudyData) -> list[Trial]:
    """Run a study on a warm process that is there already; everything else is as in ``sweepkit.run``."""
    checked = check(study)
    study = checked.study
    study.place.folder.mkdir(parents=True)
    identify(study.place, study)
    search = Search(study, open_storage(study.place, study, repair=True), Proposer(study, checked.known))
    courier = Courier(tracker_of(study), warn=print)
    setup = Setup(slots=2, splits_batches=True)
    session = StudySession(study, search, courier=courier, watch=Watcher(), setup=setup)
    LocalBackend(study, executor).drive(session)
    return search.trials()


@pytest.mark.parametrize("kind", SAMPLERS)
def test_every_sampler_runs_a_study_to_its_end(home: Path, executor: Executor, kind: str) -> None:
    space: dict[str, Any] = {
        "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "per_device_train_batch_size": {"low": 4, "high": 8, "step": 4},
    }
    if kind == "grid":
        space["learning_rate"] = {"choices": [1e-4, 1e-3, 1e-2]}
    sampler = {"type": kind, "seed": 3, **SAMPLERS[kind]}
    study = toy_study(home, name=f"sampler-{kind}", space=space, sampler=sampler, budget={"trials": 5}, training=LONG)
    rows = run_on(executor, study)
    assert [str(row.ending) for row in rows] == ["complete"] * 5
    assert len({json.dumps(dict(row.params)) for row in rows}) == 5


@pytest.mark.parametrize("kind", PRUNERS)
def test_every_pruner_runs_a_study_to_its_end(home: Path, executor: Executor, kind: str) -> None:
    pruner = {"type": kind, **PRUNERS[kind]}
    study = toy_study(
        home,
        name=f"pruner-{kind}",
        pruner=pruner,
        budget={"trials": 6},
        sampler={"type": "random", "seed": 5},
        training=LONG,
    )
    rows = run_on(executor, study)
    assert {str(row.ending) for row in rows} <= {"complete", "pruned"}
    assert len(rows) == 6
    if kind in ("median", "asha", "threshold"):
        assert any(str(row.ending) == "pruned" for row in rows)


def test_a_child_is_there_exactly_when_its_parents_choice_asks_for_it(home: Path, executor: Executor) -> None:
    space = {
        "optim": {
            "choices": {
                "adamw_torch": {"adam_beta2": {"low": 0.9, "high": 0.99}, "weight_decay": {"low": 0.1, "high": 0.2}},
                "sgd": {
                    "lr_scheduler_type": {"choices": {"cosine": {}, "linear": {"warmup_steps": {"low": 1, "high": 3}}}}
                },
            }
        },
        "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    }
    rows = run_on(executor, toy_study(home, name="conditional", space=space, budget={"trials": 12}, training=LONG))
    seen = set()
    for row in rows:
        assert (row.ending, row.cause) == ("complete", "")
        adam = row.params["optim"] == "adamw_torch"
        linear = row.params.get("lr_scheduler_type") == "linear"
        assert ("adam_beta2" in row.params, "weight_decay" in row.params) == (adam, adam)
        assert ("lr_scheduler_type" in row.params, "warmup_steps" in row.params) == (not adam, linear)
        log = TrialLog(home / "runs/conditional/trials" / f"{row.number:04d}")
        (started,) = [event for event in log.refresh() if isinstance(event, Started)]
        given = set(started.effective) & {"adam_beta2", "weight_decay", "lr_scheduler_type", "warmup_steps"}
        assert given <= set(row.params), "a value leaked into a trial that did not ask for it"
        seen.add((adam, linear))
    assert seen == {(True, False), (False, True), (False, False)}


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.tiny_gpt2(tmp_path_factory.mktemp("models") / "tiny-gpt2")


# peft asks transformers by a name that transformers is giving up.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_lora_is_searched_trained_and_kept(project: Path, tiny_gpt2: Path) -> None:
    (project / "text.txt").write_text("\n".join(text for _, text in toys.messages(200)))
    study = toy_study(
        project,
        task={},
        space={
            "peft.r": {"choices": [2, 4]},
            "peft.lora_alpha": {"expression": "2 * peft.r"},
            "learning_rate": {"low": 1e-3, "high": 1e-2, "log": True},
        },
        objective={"metric": "eval_loss", "direction": "minimize"},
        budget={"trials": 3},
    )
    spec = {"type": "causal-lm", "model": str(tiny_gpt2), "data": {"path": "text.txt"}, "block_size": 16}
    study = StudyData.model_validate({**study.model_dump(exclude={"task"}), "task": spec}).at(project)
    outcome = run(study)
    assert [row.cause for row in outcome.rows] == [""] * 3
    best = outcome.best
    assert best is not None and best.checkpoint is not None
    from peft import PeftConfig, PeftModel
    from transformers import AutoModelForCausalLM

    config = PeftConfig.from_pretrained(str(best.checkpoint))
    assert (config.r, config.lora_alpha) == (best.params["peft.r"], 2 * best.params["peft.r"])
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_gpt2), str(best.checkpoint))
    ranks = {p.shape[0] for name, p in model.named_parameters() if "lora_A" in name}
    assert ranks == {best.params["peft.r"]}


def test_several_goals_end_in_a_front(project: Path) -> None:
    goals = [{"metric": "eval_score", "direction": "maximize"}, {"metric": "eval_loss", "direction": "minimize"}]
    study = toy_study(
        project,
        objective={"metrics": goals, "prune_on": "eval_score"},
        sampler={"type": "nsga2", "population_size": 4},
        pruner={"type": "threshold", "lower": -5.0},
        budget={"trials": 6},
    )
    outcome = run(study)
    assert [len(row.values) for row in outcome.rows] == [2] * 6
    assert "Pareto front" in CliRunner().invoke(app, ["show", "toy", "--once"]).output


SEQ2SEQ = '''
from typing import Any, ClassVar
import torch
from transformers import Seq2SeqTrainer
from toy_tasks import Quadratic

class Weighted(Seq2SeqTrainer):
    """A loss of its own, and arguments of its own."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
        outputs = model(**inputs)
        loss = outputs["loss"] * (self.args.generation_max_length or 1)
        return (loss, outputs) if return_outputs else loss

class Mine(Quadratic):
    arguments_type: ClassVar[str] = "transformers.training_args_seq2seq:Seq2SeqTrainingArguments"

    def trainer(self, **kwargs: Any) -> Seq2SeqTrainer:
        return Weighted(**kwargs)

    def reported(self) -> frozenset[str]:
        return frozenset({"eval_loss"})
'''


def test_a_trainer_of_ones_own_with_arguments_of_its_own(project: Path) -> None:
    (project / "task.py").write_text(SEQ2SEQ)
    study = toy_study(
        project,
        space={"generation_max_length": {"choices": [1, 3]}},
        objective={"metric": "eval_loss", "direction": "minimize"},
        training={"predict_with_generate": False},
        budget={"trials": 2},
    )
    study = study.model_copy(update={"task": study.task.model_copy(update={"path": "task.py:Mine"})}).at(project)
    rows = run(study).rows
    assert [(str(row.ending), row.cause) for row in rows] == [("complete", "")] * 2
    by_length = {row.params["generation_max_length"]: row.values[0] for row in rows}
    assert by_length[3] > 2 * by_length[1]


def test_a_study_runs_from_any_folder_by_file_folder_and_name(project: Path, tmp_path: Path) -> None:
    folder = project / "studies" / "toy"
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text(to_yaml(toy_study(project, budget={"trials": 1})))
    assert load_study(folder / "study.yaml").study.place.root == project
    for trials, (argument, cwd) in enumerate([(str(folder), tmp_path), ("studies/toy/study.yaml", project)], start=1):
        with chdir(cwd):
            done = CliRunner().invoke(app, ["run", argument, "--set", f"budget.trials={trials}"])
        assert done.exit_code == 0, done.output
    assert len(list((project / "runs/toy/trials").iterdir())) == 2
