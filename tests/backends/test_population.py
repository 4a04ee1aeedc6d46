"""Population-based training on this machine: one study, whole, and every claim looks at what it left.

Bandits, which Ray Tune decides, train on Ray.

The task's right schedule is known: its learning rate must fall.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest

from making import processes_below, spec, sweep, toy_study, wait_until
from sweepkit.backends import scheduler_of
from sweepkit.backends.inline import try_one
from sweepkit.check import check
from sweepkit.check.study_file import to_yaml
from sweepkit.driver.run import run
from sweepkit.report.watch import Outcome
from sweepkit.study.errors import StudyFileError
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Evaluated, Scheduled, Started, from_json
from sweepkit.trial.log import TrialLog
from sweepkit.trial.objective import run_trial
from sweepkit.trial.trial import Trial, Turn, lineage
from toys import TOY_TASKS

pytestmark = pytest.mark.real


NEEDS_RAY = "Ray Tune is missing; pip install 'sweepkit[ray]'"
EVALUATIONS, STEPS = 8, 4
MEMBERS = [1.6, 0.8, 0.4, 0.2]
"""The learning rates that the members begin with."""


def falling(project: Path, **keys: Any) -> StudyData:
    """Four members that evaluate after each of eight epochs of four steps, and meet there."""
    return toy_study(
        project,
        **{
            "task": {"path": f"{TOY_TASKS}:Falling", "steps_file": str(project / "steps")},
            "training": {
                "num_train_epochs": EVALUATIONS,
                "optim": "sgd",
                "lr_scheduler_type": "constant",
                "max_grad_norm": 0.0,
            },
            "space": {
                "learning_rate": {"low": 0.02, "high": 2.0, "log": True},
                "weight_decay": {"low": 0.0, "high": 1e-6},
            },
            "enqueue": [{"learning_rate": rate, "weight_decay": 5e-7} for rate in MEMBERS],
            "pruner": {
                "type": "pbt",
                "quantile_fraction": 0.5,
                "perturbation_factors": [0.5, 1.25],
                "resample_probability": 0.0,
            },
            "budget": {"trials": len(MEMBERS)},
            "backend": {"parallel": 2},
            **keys,
        },
    )


@dataclass
class Held:
    """What a population left."""

    study: StudyData
    outcome: Outcome

    @property
    def best(self) -> Trial:
        assert self.outcome.best is not None
        return self.outcome.best

    def log(self, number: int) -> TrialLog:
        return TrialLog(self.study.place.trial(number))

    def steps(self, number: int) -> list[dict[str, Any]]:
        """Return what a member's steps began with, first step first."""
        # The first line is of the look at the task, before any member.
        said = [json.loads(line) for line in (Path(self.study.home) / "steps").read_text().splitlines()[1:]]
        return [line for line in said if line["trial"] == number]

    def lineage(self, until: float = float("inf")) -> tuple[int, tuple[Turn, ...]]:
        return lineage({row.number: row.schedule for row in self.outcome.rows}, self.best.number, until)


def stored(study: StudyData) -> list[optuna.trial.FrozenTrial]:
    """Return the trials as any program finds them that opens Optuna's journal."""
    backend = optuna.storages.journal.JournalFileBackend(str(study.place.journal))
    return optuna.load_study(study_name=study.name, storage=optuna.storages.JournalStorage(backend)).trials


def trained(study: StudyData) -> Held:
    outcome = run(study)
    assert outcome.status == "done", outcome.reason
    return Held(study, outcome)


@pytest.fixture(scope="module")
def population(tmp_path_factory: pytest.TempPathFactory) -> Held:
    project = tmp_path_factory.mktemp("population")
    (project / "pyproject.toml").write_text('[project]\nname = "toy"\nversion = "0"\n')
    os.chdir(project)
    return trained(falling(project, tracking={"uri": "sqlite:///mlflow.db"}))


def check_meetings(held: Held) -> None:
    """Every member trained to its end and met the others at each evaluation before."""
    assert [str(row.ending) for row in held.outcome.rows] == ["complete"] * len(MEMBERS)
    for row in held.outcome.rows:
        assert [turn.evaluation for turn in row.schedule] == list(range(1, EVALUATIONS))
        assert len(held.log(row.number).evaluations) == EVALUATIONS


def check_values(held: Held) -> None:
    """Every step of every member was trained, once, with the values that its schedule has for it."""
    for row in held.outcome.rows:
        steps = held.steps(row.number)
        assert [said["step"] for said in steps] == list(range(1, EVALUATIONS * STEPS + 1))
        for said in steps:
            turns = [turn.hyperparameters for turn in row.schedule if turn.step < said["step"]]
            assert {name: said[name] for name in row.params} == (turns[-1] if turns else row.params)


def check_weights(held: Held) -> None:
    """Members took over weights that were not theirs: their next step began with those that the donor had."""
    others = 0
    for row in held.outcome.rows:
        starts = [event.resumed for event in held.log(row.number).refresh() if isinstance(event, Started)]
        for turn in row.schedule:
            if turn.donor is not None:
                assert turn.step in starts
                own, donors = (held.steps(number)[turn.step - 1 : turn.step + 1] for number in (row.number, turn.donor))
                assert own[1]["weights"] == donors[1]["weights"]
                others += own[0]["weights"] != donors[0]["weights"]
    assert others


def test_every_member_trains_to_its_end_and_meets_the_others_at_each_evaluation_before(population: Held) -> None:
    check_meetings(population)


def test_every_step_is_trained_with_the_recorded_values(population: Held) -> None:
    check_values(population)


def test_members_go_on_with_the_weights_of_their_donors(population: Held) -> None:
    check_weights(population)


def test_members_that_take_over_weights_get_other_values(population: Held) -> None:
    for row in population.outcome.rows:
        for turn in row.schedule:
            if turn.donor is not None:
                donor = population.outcome.rows[turn.donor]
                before = [each.hyperparameters for each in donor.schedule if each.evaluation < turn.evaluation]
                assert turn.hyperparameters != (before[-1] if before else donor.params)


def test_the_winners_learning_rate_falls(population: Held) -> None:
    root, turns = population.lineage()
    rates = [
        population.outcome.rows[root].params["learning_rate"],
        *(t.hyperparameters["learning_rate"] for t in turns),
    ]
    assert rates[0] >= 0.8
    assert rates[-1] <= rates[0] / 3


def constant(study: StudyData, project: Path, rate: float) -> float:
    """Return how far a learning rate gets that stays as it is."""

    class Going:
        def send(self, event: Any) -> None:
            """Nobody listens."""

        def ask(self, event: Evaluated) -> str:
            return "continue"

        def poll(self) -> str | None:
            return None

    plain = study.model_copy(update={"task": study.task.model_copy(update={"path": f"{TOY_TASKS}:Falling"})}).at(
        project
    )
    values = {"learning_rate": rate, "weight_decay": 5e-7, "task.steps_file": ""}
    (value,) = run_trial(plain, spec(project, 0, values), Going()).values
    return value


def test_a_population_beats_the_best_constant_value(population: Held, project: Path) -> None:
    best = max(constant(population.study, project, rate) for rate in (0.4, 0.6, 0.7, 0.8, 1.0, 1.2))
    assert population.best.value is not None
    assert population.best.value > best + 0.1  # in powers of ten of the distance


def replayed(held: Held, project: Path) -> list[float]:
    root, turns = held.lineage()
    printed = io.StringIO()
    study = held.study.model_copy(update={"name": "again"}).at(project)
    with contextlib.redirect_stdout(printed):
        finished = try_one(study, {**held.outcome.rows[root].params, "task.steps_file": ""}, turns)
    assert str(finished.ending) == "complete"
    lines = [line for line in printed.getvalue().splitlines() if line.startswith('{"kind"')]  # the Trainer prints, too
    events = [from_json(line) for line in lines]
    return [event.values[0] for event in events if isinstance(event, Evaluated)]


@pytest.mark.slow
def test_one_run_along_a_members_schedule_reaches_what_its_weights_reached(population: Held, project: Path) -> None:
    schedules = {row.number: row.schedule for row in population.outcome.rows}
    assert any(turn.donor is not None for turn in population.lineage()[1])
    reached = []
    for number in range(1, EVALUATIONS + 1):
        owner, until = population.best.number, float("inf")
        while turn := next(
            (t for t in reversed(schedules[owner]) if t.donor is not None and t.evaluation < until), None
        ):
            if turn.evaluation < number:
                break
            assert turn.donor is not None
            owner, until = turn.donor, turn.evaluation
        reached.append(population.log(owner).evaluations[number - 1].values[0])
    assert replayed(population, project) == reached


def test_the_schedule_stands_in_the_storage_in_the_log_and_in_mlflow(population: Held) -> None:
    from mlflow import MlflowClient

    trials = stored(population.study)
    client = MlflowClient(f"sqlite:///{population.study.place.root}/mlflow.db")
    for row in population.outcome.rows:
        rates = [turn.hyperparameters["learning_rate"] for turn in row.schedule]
        in_storage = [turn["hyperparameters"]["learning_rate"] for turn in trials[row.number].user_attrs["schedule"]]
        told = [event for event in population.log(row.number).refresh() if isinstance(event, Scheduled)]
        assert row.mlflow_run is not None
        history = client.get_metric_history(row.mlflow_run, "schedule/learning_rate")
        assert in_storage == [event.hyperparameters["learning_rate"] for event in told] == rates
        assert [(metric.step, metric.value) for metric in history] == [
            (turn.step, rate) for turn, rate in zip(row.schedule, rates, strict=True)
        ]
        assert float(client.get_run(row.mlflow_run).data.params["learning_rate"]) == row.params["learning_rate"]


def test_a_script_with_fixed_values_is_not_written_for_a_schedule(population: Held) -> None:
    process = sweep("best", "toy", "--export", "out", cwd=population.study.home)
    output, _ = process.communicate(timeout=180)
    assert (process.returncode, f"sweep try toy --trial {population.best.number}" in output) == (2, True), output


@pytest.mark.slow
def test_the_command_follows_a_trials_schedule(population: Held) -> None:
    process = sweep("try", "toy", "--trial", str(population.best.number), cwd=population.study.home)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert f"eval_score {population.best.value:.4g}"[:16] in output


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_population_whose_driver_is_killed_goes_on_to_the_same_schedules(
    population: Held, project: Path, tmp_path: Path
) -> None:
    file = project / "study.yaml"
    file.write_text(to_yaml(falling(project)))
    environment = {**os.environ, "SWEEPKIT_TEST_MARK": str(tmp_path)}
    for evaluation in (2, 5):
        process = sweep("run", str(file), cwd=project, env=environment)
        log = TrialLog(project / "runs/toy/trials/0001")
        wait_until(lambda log=log, n=evaluation: len(log.evaluations) >= n, 300, f"evaluation {evaluation}")
        process.kill()
        process.communicate()
        wait_until(lambda: not processes_below(str(tmp_path)), 30, "every process is gone")
    process = sweep("run", str(file), cwd=project, env=environment)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    schedules = [[Turn(**turn) for turn in trial.user_attrs["schedule"]] for trial in stored(falling(project))]
    assert schedules == [list(row.schedule) for row in population.outcome.rows]


@pytest.mark.slow
def test_population_based_bandits_train_within_the_space_with_the_values_they_record(project: Path) -> None:
    pytest.importorskip("ray", reason=NEEDS_RAY)
    ray = {"type": "ray", "parallel": 2}
    held = trained(falling(project, pruner={"type": "pb2", "quantile_fraction": 0.5}, backend=ray))
    check_meetings(held)
    check_values(held)
    check_weights(held)
    turns = [turn.hyperparameters for row in held.outcome.rows for turn in row.schedule]
    assert all(0.02 <= turn["learning_rate"] <= 2.0 and 0.0 <= turn["weight_decay"] <= 1e-6 for turn in turns)
    assert {turn["learning_rate"] for turn in turns} - set(MEMBERS), "nobody got a value that was not there before"


def decided(project: Path, kind: str, until: int = 3) -> list[Mapping[int, Turn]]:
    """Return the choices of three meetings of five members, the better the higher their number."""
    space = {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "weight_decay": {"low": 0.0, "high": 0.1}}
    scheduler = scheduler_of(toy_study(project, pruner={"type": kind}, space=space))
    assert scheduler is not None
    values: dict[int, Mapping[str, Any]] = {
        number: {"learning_rate": 10 ** (-4 + number / 2), "weight_decay": 0.02 * number} for number in range(5)
    }
    found = []
    for evaluation in range(1, until + 1):
        members = {
            number: Turn(evaluation=evaluation, step=evaluation, value=float(number * evaluation), hyperparameters=each)
            for number, each in values.items()
        }
        choices = scheduler.decide(members)
        values = {number: choice.hyperparameters for number, choice in choices.items()}
        found.append(choices)
    return found


@pytest.mark.parametrize("kind", ["pbt", "pb2"])
def test_meetings_that_are_held_again_decide_the_same_within_the_space(project: Path, kind: str) -> None:
    if kind == "pb2":
        pytest.importorskip("ray", reason=NEEDS_RAY)
    first = decided(project, kind)
    assert decided(project, kind) == first
    taken = [choice for choices in first for choice in choices.values() if choice.donor is not None]
    assert len({choice.hyperparameters["weight_decay"] for choice in taken}) > 1
    assert all(1e-4 <= choice.hyperparameters["learning_rate"] <= 1e-2 for choice in taken)
    assert all(0.0 <= choice.hyperparameters["weight_decay"] <= 0.1 for choice in taken)


@pytest.mark.parametrize(("kind", "name"), [("pbt", "PopulationBasedTraining"), ("pb2", "PB2")])
def test_the_options_are_tunes_own(kind: str, name: str) -> None:
    import inspect

    pytest.importorskip("ray", reason=NEEDS_RAY)
    from ray.tune import schedulers
    from ray.tune.schedulers import pb2

    from sweepkit.check.rules.population import OPTIONS

    signature = inspect.signature(getattr(schedulers, name, None) or getattr(pb2, name))
    assert OPTIONS[kind].keys() - {"fixed"} <= signature.parameters.keys()


def one_meeting(
    project: Path, space: Mapping[str, Any], values: Mapping[int, Any], **options: Any
) -> Mapping[int, Turn]:
    """Return what a meeting decides about members with these values, the better the higher their number."""
    scheduler = scheduler_of(toy_study(project, pruner={"type": "pbt", **options}, space=space))
    assert scheduler is not None
    return scheduler.decide(
        {n: Turn(evaluation=1, step=1, value=float(n), hyperparameters=each) for n, each in values.items()}
    )


def test_what_is_fixed_goes_along_with_the_weights_and_the_rest_moves_a_step_within_the_space(project: Path) -> None:
    space = {
        "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "per_device_train_batch_size": {"choices": [4, 8, 16]},
        "gradient_accumulation_steps": {"low": 1, "high": 8},
        "warmup_steps": {"low": 0, "high": 9},
    }
    names = tuple(space)
    values = {n: dict(zip(names, (1e-2, 16, 8, n), strict=True)) for n in range(4)}
    options = {"fixed": ["warmup_steps"], "resample_probability": 0.0, "quantile_fraction": 0.5}
    found = one_meeting(project, space, values, **options)
    assert [found[n] == Turn(evaluation=1, step=1, value=n, hyperparameters=values[n]) for n in (2, 3)] == [True, True]
    for number in (0, 1):
        turn = found[number]
        assert turn.donor in (2, 3) and turn.hyperparameters["warmup_steps"] == turn.donor
        assert turn.hyperparameters["learning_rate"] in (pytest.approx(8e-3), 1e-2)
        assert turn.hyperparameters["per_device_train_batch_size"] in (8, 16)
        assert turn.hyperparameters["gradient_accumulation_steps"] in (6, 8)


def test_a_member_without_a_number_takes_over_and_is_never_taken_from(project: Path) -> None:
    space = {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}
    scheduler = scheduler_of(toy_study(project, pruner={"type": "pbt"}, space=space))
    assert scheduler is not None
    scores = {0: float("nan"), 1: -2.0, 2: -1.0, 3: -3.0}
    turns = {
        n: Turn(evaluation=2, step=8, value=value, hyperparameters={"learning_rate": 1e-3})
        for n, value in scores.items()
    }
    assert {n: turn.donor for n, turn in scheduler.decide(turns).items()} == {0: 2, 1: None, 2: None, 3: None}


def complaints(project: Path, **keys: Any) -> list[str]:
    with pytest.raises(StudyFileError) as error:
        check(falling(project, **{"enqueue": [], **keys}))
    return [str(problem) for problem in error.value.problems]


def test_what_cannot_change_is_refused_with_what_can_and_how_to_keep_it(project: Path) -> None:
    rate = {"learning_rate": {"low": 0.02, "high": 2.0, "log": True}}
    (warm,) = complaints(project, space={**rate, "warmup_steps": {"low": 0, "high": 9}})
    assert warm.startswith(
        "space.warmup_steps: cannot change while a trial trains; pbt changes learning_rate, weight_decay,"
    )
    assert warm.endswith("or list it in pruner.fixed: each member keeps its own")
    batch = {**rate, "per_device_train_batch_size": {"choices": [4, 8]}}
    assert "set training.max_steps and eval_strategy: steps" in "\n".join(complaints(project, space=batch))
    (kept,) = complaints(project, space=rate, pruner={"type": "pbt", "fixed": ["optim"]})
    assert kept.startswith("pruner.fixed: expected names of training arguments in the space")
    steps = {"max_steps": 32, "eval_strategy": "steps", "eval_steps": 4}
    space = {**batch, "model.dropout": {"low": 0.0, "high": 0.5}, "warmup_steps": {"low": 0, "high": 9}}
    check(falling(project, enqueue=[], space=space, training=steps, pruner={"type": "pbt", "fixed": ["warmup_steps"]}))
