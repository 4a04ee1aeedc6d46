"""``hyperparameter_search`` against the documented behaviour of the Trainer's own method of that name."""

from __future__ import annotations

import sys
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudpickle
import optuna
import pytest
import torch
from datasets import Dataset
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from transformers import (
    EarlyStoppingCallback,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.trainer_utils import BestRun

import sweepkit
from lines import Line, LineConfig, line, noisy, trainer
from sweepkit import InputError, StudyFailed
from sweepkit.api import trainer_search
from sweepkit.trial.events import Evaluated, from_json

pytestmark = pytest.mark.real


# As in a script's __main__ or a notebook: what is defined here goes to other processes by value.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def line_of(trial: Any) -> Line:
    return Line(LineConfig(a=float(trial.params["a"]) if trial else 0.0))


class Weighted(Trainer):
    """Adds ``weight`` to every loss."""

    def __init__(self, *args: Any, weight: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.weight = weight

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)
        return (loss + self.weight, outputs) if return_outputs else loss + self.weight


class Forgetful(Trainer):
    """Does not keep what it is made of."""

    def __init__(self, *args: Any, weight: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


def thousand_more(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> torch.Tensor:
    loss: torch.Tensor = ((outputs["logits"] - labels) ** 2).mean() + 1000
    return loss


def start(trial: Any) -> dict[str, Any]:
    """``a`` is the model's alone; so is ``nothing``, which was not even suggested."""
    return {"a": trial.suggest_int("a", 5, 6), "nothing": 1, "seed": trial.suggest_int("seed", 1, 3)}


def learning_rate(trial: Any) -> dict[str, Any]:
    return {"learning_rate": trial.suggest_float("learning_rate", 1e-3, 1e-1, log=True)}


def evaluations(folder: Path) -> list[list[Evaluated]]:
    """Return the evaluations in each trial's log, by trial."""
    logs = sorted(folder.glob("runs/*/trials/*/events.jsonl"))
    events = [[from_json(line) for line in log.read_bytes().splitlines()] for log in logs]
    return [[event for event in trial if isinstance(event, Evaluated)] for trial in events]


Ran = tuple[BestRun, list[str], list[int]]
"""The best run, the warnings, and the steps at which trial 0 was evaluated."""


@pytest.fixture(scope="module")
def weighted(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The best run, and the warnings, of a Trainer subclass with a loss, an optimizer and an argument of its own.

    Its optimizer never moves the model, so that the loss tells what took part: (a - 2)² · 17.5 + 1000 + weight.
    """
    folder = tmp_path_factory.mktemp("weighted")
    (folder / "pyproject.toml").write_text('[project]\nname = "toy"\nversion = "0"\n')
    plain = trainer(folder, max_steps=20, metric_for_best_model="loss")
    mine = Weighted(
        args=plain.args,
        model_init=line_of,
        train_dataset=plain.train_dataset,
        eval_dataset=plain.eval_dataset,
        compute_loss_func=thousand_more,
        optimizer_cls_and_kwargs=(torch.optim.SGD, {"lr": 0.0}),
        weight=0.25,
        callbacks=[EarlyStoppingCallback(1)],
    )
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        patch.chdir(folder)
        best = sweepkit.hyperparameter_search(mine, start, n_trials=2, n_jobs=1)
    assert isinstance(best, BestRun)
    steps = [event.step for event in evaluations(folder)[0]]
    return best, [str(warning.message) for warning in caught], steps


def test_a_loss_function_of_its_own_is_trained(weighted: Ran) -> None:
    assert weighted[0].objective > 1000


def test_a_trainer_that_stops_early_does(weighted: Ran) -> None:
    assert weighted[2] == [2, 4]


def test_an_argument_of_a_trainer_subclass_is_kept(weighted: Ran) -> None:
    assert (weighted[0].objective - 0.25) % 17.5 == pytest.approx(1000 % 17.5)


def test_model_init_gets_the_trial_and_the_optimizer_is_the_trainers_own(weighted: Ran) -> None:
    best = weighted[0]
    assert best.objective == pytest.approx((best.hyperparameters["a"] - 2) ** 2 * 17.5 + 1000.25)


def test_hyperparameters_are_what_was_suggested(weighted: Ran) -> None:
    assert set(weighted[0].hyperparameters) == {"a", "seed"}


def test_names_that_the_arguments_do_not_have_are_left_to_model_init(weighted: Ran) -> None:
    assert [text for text in weighted[1] if text.startswith("hp_space:")] == [
        "hp_space: a, nothing: no field of the Trainer's arguments; left to model_init"
    ]


def test_a_subclass_that_forgets_an_argument_is_refused(project: Path) -> None:
    plain = trainer(project)
    mine = Forgetful(
        args=plain.args, model_init=line, train_dataset=plain.train_dataset, eval_dataset=plain.eval_dataset
    )
    with pytest.raises(InputError, match=r"Forgetful takes weight but does not keep it.*set self.weight = weight"):
        sweepkit.hyperparameter_search(mine, learning_rate)


@pytest.mark.slow
def test_a_pruner_prunes(project: Path) -> None:
    pruner = optuna.pruners.ThresholdPruner(upper=1e-9)
    with pytest.raises(StudyFailed, match="no trial completed"):
        sweepkit.hyperparameter_search(trainer(project), learning_rate, n_trials=1, pruner=pruner)


def test_the_median_pruner_prunes_by_default(project: Path) -> None:
    def space(trial: Any) -> dict[str, Any]:
        low = 2.0 if trial.number < 5 else 50.0  # the median pruner looks on for five trials
        return {
            "a": trial.suggest_float("a", low, low + 1),
            "learning_rate": trial.suggest_float("learning_rate", 0, 0),
        }

    mine = trainer(project)
    mine.model_init = line_of
    with pytest.warns(UserWarning, match="hp_space: a: no field"):
        sweepkit.hyperparameter_search(mine, space, n_trials=6, n_jobs=1, study_name="median")
    storage = JournalStorage(JournalFileBackend(str(project / "runs/median/optuna.journal")))
    study = optuna.load_study(study_name="median", storage=storage)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 5 + ["PRUNED"]


def test_a_study_name_resumes_and_the_best_run_is_returned(project: Path) -> None:
    for number in (0, 1):  # as the Trainer's own search leaves them
        (project / "out" / f"run-{number}" / "checkpoint-4").mkdir(parents=True)
    first = sweepkit.hyperparameter_search(trainer(project), learning_rate, n_trials=2, study_name="twice")
    assert (project / "out" / f"run-{first.run_id}.before-1" / "checkpoint-4").exists()
    best = sweepkit.hyperparameter_search(
        trainer(project), hp_space=learning_rate, n_trials=4, direction="minimize", study_name="twice"
    )
    assert isinstance(first, BestRun) and isinstance(best, BestRun)
    assert best.objective <= first.objective
    losses = [trial[-1].metrics["eval_loss"] for trial in evaluations(project)]
    assert len(losses) == 4
    assert (best.objective, int(best.run_id)) == (min(losses), losses.index(min(losses)))
    assert set(best.hyperparameters) == {"learning_rate"}
    saved = (
        project / "out" / f"run-{best.run_id}" / "checkpoint-4" / "model.safetensors"
    )  # as in the Trainer's own search
    assert saved.stat().st_size > 0
    assert 1e-3 <= best.hyperparameters["learning_rate"] <= 1e-1
    with pytest.raises(InputError, match="study twice exists; leave out load_if_exists=False"):
        sweepkit.hyperparameter_search(
            trainer(project), learning_rate, n_trials=3, study_name="twice", load_if_exists=False
        )


def test_several_directions_a_conditional_space_and_names(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def space(trial: Any) -> dict[str, Any]:
        values = {"optim": trial.suggest_categorical("optim", ["sgd", "adamw_torch"])}
        if values["optim"] == "adamw_torch":
            values["adam_beta2"] = trial.suggest_float("adam_beta2", 0.9, 0.999)
        return values

    def objective(metrics: dict[str, float]) -> list[float]:
        return [-metrics["eval_loss"], metrics["epoch"]]

    def suggesting(trial: Any) -> Line:
        return Line(LineConfig(a=float(trial.suggest_int("a", 1, 3)) if trial else 0.0))

    front = sweepkit.hyperparameter_search(
        trainer(project, given={"model_init": suggesting}, learning_rate=0.0),
        hp_space=space,
        compute_objective=objective,
        hp_name=lambda trial: f"mine-{trial.number}",
        n_trials=5,
        direction=["maximize", "minimize"],
        study_name="named",
    )
    assert isinstance(front, list)
    shown = capsys.readouterr().out
    assert all(f"trial {number} complete" in shown for number in range(5))
    assert "sweep show named" in shown and "runs/named" in shown
    ends = [trial[-1] for trial in evaluations(project)]
    # All trials end at the same epoch, so that those with the lowest loss are the whole front.
    assert {tuple(run.objective) for run in front} == {(-min(end.metrics["eval_loss"] for end in ends), ends[0].epoch)}
    for run in front:
        assert -run.objective[0] == pytest.approx((run.hyperparameters["a"] - 2) ** 2 * 17.5)
        assert ("adam_beta2" in run.hyperparameters) == (run.hyperparameters["optim"] == "adamw_torch")
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "named"]
    names = {run.info.run_name for run in client.search_runs([experiment.experiment_id])}
    assert {f"mine-{number}" for number in range(5)} < names


def one_rate(trial: Any) -> dict[str, Any]:
    return {"learning_rate": trial.suggest_float("learning_rate", 0.05, 0.05)}


def of_both(metrics: dict[str, float]) -> float:
    assert {"eval_easy_loss", "eval_hard_loss"} <= metrics.keys()
    return metrics["eval_easy_loss"] + 10 * metrics["eval_hard_loss"]


def test_several_sets_are_one_evaluation_with_the_value_of_the_trainers_own_search_and_training(project: Path) -> None:
    def with_two_sets(**arguments: Any) -> Trainer:
        mine = trainer(project, per_device_train_batch_size=2, save_strategy="no", **arguments)
        mine.model_init = noisy
        hard = Dataset.from_list([{"x": [float(i)], "labels": [3.0 * i]} for i in range(4)])
        mine.eval_dataset = {"easy": mine.eval_dataset, "hard": hard}
        return mine

    asked = {"compute_objective": of_both, "n_trials": 1, "direction": "minimize"}
    expected = with_two_sets().hyperparameter_search(one_rate, backend="optuna", **asked)
    found = sweepkit.hyperparameter_search(with_two_sets(), one_rate, **asked)
    by_hand = with_two_sets(learning_rate=0.05)
    by_hand.train()
    assert found.objective == pytest.approx(expected.objective, rel=1e-6)
    assert found.objective == pytest.approx(of_both(by_hand.evaluate()), rel=1e-6)
    [said] = evaluations(project)
    assert [event.step for event in said] == [2, 4]
    assert said[-1].values == (of_both(said[-1].metrics),)


def test_a_trainer_that_cannot_be_sent_runs_here_and_says_so(project: Path) -> None:
    mine = trainer(project)
    lock, made = threading.Lock(), []

    def init() -> Line:
        with lock:
            made.append(1)
            return Line(LineConfig())

    mine.model_init = init
    with pytest.warns(UserWarning, match="cannot be sent to another process .* its trials run in this one"):
        best = sweepkit.hyperparameter_search(mine, learning_rate, n_trials=2)
    assert isinstance(best, BestRun)
    assert best.objective == min(trial[-1].metrics["eval_loss"] for trial in evaluations(project))
    assert len(made) >= 2  # in this process


class Reporting(TrainerCallback):
    """Adds the length that the trial's arguments give to the metrics."""

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        metrics["eval_length"] = args.generation_max_length


def test_a_seq2seq_trainer_keeps_its_own_arguments_and_without_a_strategy_evaluates_at_the_end(project: Path) -> None:
    plain = trainer(project)
    args = Seq2SeqTrainingArguments(
        output_dir="out", max_steps=2, use_cpu=True, report_to="none", generation_max_length=7
    )
    mine = Seq2SeqTrainer(
        args=args,
        model_init=line,
        train_dataset=plain.train_dataset,
        eval_dataset=plain.eval_dataset,
        callbacks=[Reporting()],
    )
    best = sweepkit.hyperparameter_search(mine, learning_rate, lambda metrics: metrics["eval_length"], n_trials=1)
    [[only]] = evaluations(project)
    assert isinstance(best, BestRun)
    assert (only.step, best.objective, only.metrics["eval_length"]) == (2, 7.0, 7.0)


def test_what_it_cannot_do_is_said(project: Path) -> None:
    bare = trainer(project)
    bare.model_init = None
    with pytest.raises(InputError, match="needs a model_init"):
        sweepkit.hyperparameter_search(bare, learning_rate)
    with pytest.raises(InputError, match="unknown n_trails"):
        sweepkit.hyperparameter_search(trainer(project), learning_rate, n_trails=3)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"n_jobs": 0}, "n_jobs must be a whole number of at least 1, got 0"),
        ({"stop": {"training_iteration": 1}}, "stop has no meaning here; use num_train_epochs or max_steps"),
        ({"callbacks": []}, "callbacks has no meaning here; use watch"),
        ({"backend": "wandb"}, "backend must be optuna or ray, got wandb; `sweep import` converts"),
        ({"name": "a", "study_name": "b"}, "study_name is given twice"),
        ({"pruner": "median"}, "pruner must be one of Optuna's pruners, got 'median'"),
        ({"resources_per_trial": {"tpu": 1}}, "resources_per_trial must be a dict with cpu and gpu"),
        ({"keep_checkpoints_num": 0}, "keep_checkpoints_num must be a whole number of at least 1, got 0"),
        ({"n_trials": 0}, "n_trials must be a whole number of at least 1, got 0"),
        ({"study_name": "my study"}, "study_name names a folder: .*, got 'my study'"),
        ({"direction": "down"}, "direction must be minimize or maximize, or a list of these, got 'down'"),
        ({"timeout": -1}, "timeout must be a number of seconds above 0, got -1"),
        ({"storage": optuna.storages.InMemoryStorage()}, "storage must be a URL .*, got InMemoryStorage"),
        ({"catch": (ValueError,)}, "catch: a failing trial always ends alone"),
        ({"direction": ["minimize"] * 2, "pruner": optuna.pruners.NopPruner()}, "Optuna prunes with one direction"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_done_as_asked_is_said_in_plain_words(
    project: Path, asked: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        sweepkit.hyperparameter_search(trainer(project), learning_rate, **asked)


def in_tunes_words(trial: Any) -> dict[str, Any]:
    from ray import tune

    return {"learning_rate": tune.loguniform(1e-3, 1e-1), "seed": tune.uniform(1, 4), "a": tune.randint(5, 6)}


def line_of_dict(configuration: Any) -> Line:
    return Line(LineConfig(a=float(configuration["a"]) if configuration else 0.0))


@pytest.mark.slow
def test_a_population_of_ray_tunes_scheduler_trains_with_changing_values(project: Path) -> None:
    """The script of Ray's own documentation, with its keywords."""
    tune = pytest.importorskip("ray.tune", reason="Ray Tune is missing; pip install 'sweepkit[ray]'")
    scheduler = tune.schedulers.PopulationBasedTraining(
        time_attr="training_iteration",
        perturbation_interval=1,
        hyperparam_mutations={"learning_rate": tune.loguniform(1e-3, 1e-1)},
    )
    with pytest.warns(UserWarning, match="without effect here: .*log_to_file"):
        best = sweepkit.hyperparameter_search(
            trainer(project),
            lambda trial: {"per_device_train_batch_size": 4},
            backend="ray",
            n_trials=4,
            resources_per_trial={"cpu": 1, "gpu": 0},
            scheduler=scheduler,
            keep_checkpoints_num=1,
            checkpoint_score_attr="training_iteration",
            stop=None,
            name="population",
            log_to_file=True,
        )
    assert isinstance(best, BestRun) and set(best.hyperparameters) == {"learning_rate", "per_device_train_batch_size"}
    rows = best.run_summary.trials
    assert len(rows) == 4 and best.objective == rows["eval_objective"].min()
    schedules = best.run_summary.best.schedule
    assert [turn.evaluation for turn in schedules] == [1]


@pytest.mark.slow
def test_ray_tunes_distributions_are_searched_on_ray(project: Path) -> None:
    pytest.importorskip("ray", reason="Ray Tune is missing; pip install 'sweepkit[ray]'")
    mine = trainer(project)
    mine.model_init = line_of_dict
    with pytest.warns(UserWarning, match="hp_space: a: no field"):
        best = sweepkit.hyperparameter_search(
            mine,
            in_tunes_words,
            compute_objective=lambda metrics: -metrics["eval_loss"],
            hp_name=lambda configuration: f"mine-{configuration['seed']}",
            n_trials=2,
            n_jobs=1,
            direction="maximize",
            backend="ray",
            study_name="named",
        )
    assert isinstance(best, BestRun) and best.objective < 0
    assert best.hyperparameters["a"] == 5 and best.hyperparameters["seed"] in (1, 2, 3)
    assert 1e-3 <= best.hyperparameters["learning_rate"] <= 1e-1
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "named"]
    names = {run.info.run_name for run in client.search_runs([experiment.experiment_id])}
    assert f"mine-{best.hyperparameters['seed']}" in names


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, {}),
        ({"lr_scheduler_kwargs": {"min_lr_rate": 0.0}}, {"lr_scheduler_kwargs": {"min_lr_rate": 0.0}}),
        ({"accelerator_config": {"split_batches": True}}, {"accelerator_config": {"split_batches": True}}),
        ({"fsdp_config": {"min_num_params": 3}}, {"fsdp_config": {"min_num_params": 3}}),
    ],
)
def test_the_trials_keep_the_mappings_of_the_trainers_arguments(
    tmp_path: Path, given: dict[str, Any], kept: dict[str, Any]
) -> None:
    arguments = TrainingArguments(str(tmp_path), use_cpu=True, report_to="none", **given)
    found = trainer_search._training(SimpleNamespace(args=arguments))  # type: ignore[arg-type]  # its args alone are read
    assert {name: value for name, value in found.items() if isinstance(value, dict)} == kept


class OwnTraining:
    """A trainer like SetFit's: a ``model_init`` and a ``train()`` of its own, no TrainingArguments."""

    def __init__(self, model_init: Any) -> None:
        self.model_init = model_init

    def train(self) -> None:
        self.model = self.model_init()

    def evaluate(self) -> dict[str, float]:
        return {"accuracy": 1.0}


def test_a_trainer_with_a_training_loop_of_its_own_is_told_what_to_do() -> None:
    with pytest.raises(InputError) as error:
        sweepkit.hyperparameter_search(OwnTraining(dict))  # type: ignore[arg-type]  # on purpose
    assert str(error.value) == (
        "hyperparameter_search: trainer must be a transformers.Trainer, got OwnTraining; it has a train() of its own, which no "
        "trial can prune or resume: use its own search, or write a Task whose trainer is a transformers.Trainer"
    )
    with pytest.raises(InputError, match=r"got dict$"):
        sweepkit.hyperparameter_search({})  # type: ignore[arg-type]  # on purpose
