"""Trials that pause and go on, as the session decides it. No process is started: trials are played by their events."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from making import toy_study
from sweepkit.check import known_values
from sweepkit.driver.session import Setup, StudySession
from sweepkit.report.watch import Watcher
from sweepkit.search.proposer import Proposer
from sweepkit.search.search import Search
from sweepkit.search.strategy import Next, Ruling, Seen, Strategy
from sweepkit.study.files import remove
from sweepkit.study.study import PrunerSpec
from sweepkit.trackers import tracker_of
from sweepkit.trackers.courier import Courier
from sweepkit.trial.events import Checkpointed, Evaluated, Event, Finished, Started
from sweepkit.trial.trial import Decision, Ending, Reason, Trial, TrialSpec
from toy_tasks import score

EVALUATIONS = 9
HALVING = {"type": "asha", "promote": True, "reduction_factor": 3}
WRITES = ("set_trial_user_attr", "set_trial_intermediate_value", "set_trial_state_values", "create_new_trial")


class Killed(Exception):
    """The driver dies here."""


class Play:
    """A study whose trials are played one at a time; ``dies`` is asked at each event and write whether it is the last."""

    def __init__(self, project: Path, *, dies: Callable[[], bool] = lambda: False, **keys: Any) -> None:
        whole = {"pruner": HALVING, "budget": {"trials": 12}, "sampler": {"type": "tpe", "n_startup_trials": 4}, **keys}
        training = {"num_train_epochs": EVALUATIONS, **whole.pop("training", {})}
        self.study = toy_study(project, training=training, **whole)
        self._known = known_values(self.study)
        self.storage = InMemoryStorage()
        self._dies = dies
        for name in WRITES:
            setattr(self.storage, name, self._mortal(getattr(self.storage, name)))
        self.strategy: Strategy | None = None
        self.stints: list[tuple[int, int, int]] = []
        """Trial, the evaluation after which a process of it began, and the one it ended with."""
        self.said: list[str] = []
        self.bytes = 0
        self.open()

    def _mortal(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def dying(*arguments: Any, **options: Any) -> Any:
            if self._dies():
                raise Killed
            return write(*arguments, **options)

        return dying

    def open(self) -> None:
        """A new driver comes."""
        self.study.place.folder.mkdir(parents=True, exist_ok=True)
        self.search = Search(self.study, self.storage, Proposer(self.study, self._known))
        if self.strategy is not None:
            self.search._strategy = self.strategy
        courier, watch = Courier(tracker_of(self.study), warn=print), Watcher()
        watch.on_note = self.said.append  # type: ignore[method-assign]  # the watcher's one hook of interest
        self.session = StudySession(self.study, self.search, courier=courier, watch=watch, setup=Setup(slots=1))

    def handle(self, event: Event) -> str | None:
        if self._dies():
            raise Killed
        return self.session.handle(event)

    def play(self, spec: TrialSpec) -> None:
        """Train until the answer ends it; an evaluation takes ten seconds, a start two."""
        first = done = len(spec.evaluations)
        number, values = spec.number, [next(iter(each["values"])) for each in spec.evaluations]
        self.handle(Started(trial=number, at=10.0 * done, attempt=spec.attempt, resumed=done))
        answer: str | None = "continue"
        while done < EVALUATIONS and answer in ("continue", "lean"):
            done += 1
            values.append(score(spec.hyperparameters["learning_rate"], progress=done / EVALUATIONS))
            common: dict[str, Any] = {"trial": number, "at": 10.0 * done, "step": done}
            metrics = {"eval_score": values[-1]}
            answer = self.handle(
                Evaluated(
                    number=done, epoch=done, metrics=metrics, values=(values[-1],), final=done == EVALUATIONS, **common
                )
            )
            if answer in ("continue", "stop"):
                path = self.study.place.trial(number) / "last" / f"checkpoint-{done}"
                remove(path.parent)
                path.mkdir(parents=True)
                (path / "weights").write_bytes(bytes(self.bytes))
                self.handle(Checkpointed(role="last", path=str(path), **common))
        ending = {"prune": Ending.pruned, "stop": Ending.stopped}.get(answer or "", Ending.complete)
        self.stints.append((number, first, done))
        end = values[-1:] if ending is Ending.complete else []
        seconds = 10.0 * (done - first) + 2
        self.handle(Finished(trial=number, at=10.0 * done, ending=ending, seconds=seconds, values=tuple(end)))

    def next(self) -> TrialSpec:
        spec = self.session.next()
        assert spec is not None
        return spec

    def run(self) -> list[Trial]:
        """Run the study to its end, with a new driver after each death; return the rows."""
        while True:
            try:
                while (spec := self.session.next()) is not None:
                    self.play(spec)
                self.session.end_paused()
                return self.search.trials()
            except Killed:
                self._reopen()

    def _reopen(self) -> None:
        while True:
            try:
                return self.open()
            except Killed:
                continue


def essence(rows: list[Trial]) -> list[tuple[Any, ...]]:
    return [(row.number, row.ending, row.params, row.values, row.decisions, row.cause) for row in rows]


def answers(row: Trial) -> list[tuple[int, str]]:
    return [(decision.evaluation, decision.answer) for decision in row.decisions]


@pytest.fixture
def played(project: Path) -> Play:
    return Play(project)


def test_trials_pause_at_rungs_and_the_best_of_each_go_on(played: Play) -> None:
    rows = played.run()
    at = {rung: [row for row in rows if len(row.intermediate) >= rung] for rung in (1, 3, 9)}
    assert {len(row.intermediate) for row in rows} == {1, 3, 9}, "a trial is at a rung, or trained to its end"
    assert len(at[1]) == 12 and 4 <= len(at[3]) <= 6 and len(at[9]) >= 1
    for below, above in ((1, 3), (3, 9)):
        best = sorted(at[below], key=lambda row: -row.intermediate[below])[: len(at[below]) // 3]
        assert all(len(row.intermediate) >= above for row in best), "what is among the best of its rung has gone on"
    assert [str(row.ending) for row in at[9]] == ["complete"] * len(at[9])
    for row in rows:
        if row not in at[9]:
            assert (row.ending, row.cause) == (Ending.pruned, "was not continued: all trials of the budget are done")
            assert row.value == row.intermediate[max(row.intermediate)]
    assert any(first > 0 for _, first, _ in played.stints), "a paused one went on"


def test_a_trial_that_may_go_on_at_once_does_not_leave_its_process(played: Play) -> None:
    rows = played.run()
    for one, following in zip(played.stints, played.stints[1:], strict=False):
        assert one[0] != following[0]
    assert any(answers(row)[0] == (1, "continue") for row in rows)


@pytest.mark.parametrize(("seed", "pruner"), [*((seed, HALVING) for seed in range(3)), (0, {"type": "freeze-thaw"})])
def test_the_decisions_do_not_depend_on_when_drivers_die(project: Path, seed: int, pruner: dict[str, Any]) -> None:
    straight, dice = essence(Play(project, pruner=pruner).run()), Random(seed)
    deaths = Play(project, dies=lambda: dice.random() < 0.04, name="killed", pruner=pruner)
    assert essence(deaths.run()) == straight


def test_a_paused_trial_takes_a_place_in_the_budget_until_the_study_is_done(project: Path) -> None:
    play = Play(project, budget={"trials": 3}, pruner={**HALVING, "reduction_factor": 4})
    for _ in range(3):
        play.play(play.next())
    assert [row.ending for row in play.search.trials()] == [Ending.paused] * 3
    spec = play.next()
    row = play.search.row(spec.number)
    assert (spec.number, row.decisions[-1]) == (
        max(play.search.trials(), key=lambda row: row.value or 0).number,
        Decision(1, "continue", "no more trials start, and too few were trained to their end"),
    )
    play.play(spec)
    assert [row.ending for row in play.run()].count(Ending.complete) == 1


def test_samplers_learn_from_paused_trials_as_from_pruned_ones(played: Play) -> None:
    played.play(played.next())
    [seen] = [
        t for t in played.search.records.study(played.search._proposals.view(_blank())).get_trials() if t.number == 0
    ]
    assert (seen.state, seen.intermediate_values) == (TrialState.PRUNED, played.search.row(0).intermediate)
    assert played.storage.get_all_trials(0)[0].state == TrialState.RUNNING


def _blank() -> Any:
    from sweepkit.search.records import blank

    return blank(1, -1)


def test_an_interrupted_study_keeps_its_paused_trials(played: Play) -> None:
    for _ in range(3):
        played.play(played.next())
    before = essence(played.search.trials())
    played.session.interrupt()
    assert played.session.next() is None
    played.open()
    assert essence(played.search.trials()) == before and before[0][1] is Ending.paused
    spec = played.next()
    played.handle(Started(trial=spec.number, at=0.0, attempt=spec.attempt, resumed=1))
    played.session.interrupt()
    played.handle(Finished(trial=spec.number, at=9.0, ending=Ending.stopped, seconds=9.0))
    stopped = played.search.row(spec.number)
    assert (stopped.ending, stopped.seconds) == (Ending.stopped, 12.0 + 9.0), "what it trained before it paused counts"
    played.open()
    assert [row.ending for row in played.run()].count(Ending.paused) == 0


def test_only_one_of_two_drivers_takes_a_paused_trial(played: Play) -> None:
    while (number := max((len(s) for s in [played.stints]), default=0)) < 8:
        played.play(played.next())
    other = Search(played.study, played.storage, Proposer(played.study, known_values(played.study)))
    both = [played.search.ask(), other.ask()]
    assert len({each.number for each in both if each}) == 2 and number == 8
    paused = played.search.paused_trials()[0]
    assert played.search.close_paused(paused, "first") and other.close_paused(paused, "second") is None


@pytest.mark.parametrize("lost", ["last", "."])
def test_a_paused_trial_without_its_checkpoint_or_folder_starts_over_and_comes_to_the_same(
    project: Path, played: Play, lost: str
) -> None:
    straight = essence(played.run())
    again = Play(project, name="lost")
    while (spec := again.session.next()) is not None:
        again.play(spec)
        row = again.search.row(spec.number)
        if row.ending is Ending.paused:
            shutil.rmtree(again.study.place.trial(row.number) / lost)
    again.session.end_paused()
    assert essence(again.search.trials()) == straight
    went_on = [first for number, first, _ in again.stints if again.search.row(number).attempts > 1 or lost == "."]
    assert went_on and set(went_on) == {0}
    assert any("starts over" in said for said in again.said) == (lost == ".")


def test_paused_checkpoints_beyond_their_limit_cost_the_least_promising_trial_its_place(project: Path) -> None:
    play = Play(project, checkpoints={"paused_gb": 2.5e-6})
    play.bytes = 1000
    held = []
    while (spec := play.session.next()) is not None:
        play.play(spec)
        paused = [row for row in play.search.trials() if row.ending is Ending.paused]
        held.append(sum(1000 for row in paused if list(play.study.place.trial(row.number).glob("last/*"))))
        out = [row for row in play.search.trials() if "paused_gb" in row.cause]
        for row in out:
            assert (row.ending, row.cause) == (Ending.pruned, "checkpoints.paused_gb leaves no room for its checkpoint")
            assert not (play.study.place.trial(row.number) / "last").exists()
    assert max(held) == 2000 and out
    assert any(row.ending is Ending.complete for row in play.search.trials())


def test_a_full_budget_of_disk_takes_paused_trials_before_it_keeps_running_ones_from_their_checkpoints(
    project: Path,
) -> None:
    play = Play(project, budget={"trials": 12, "disk_gb": 4e-6})
    play.bytes = 1000
    used = []
    while (spec := play.session.next()) is not None:
        play.play(spec)
        used.append(sum(file.stat().st_size for file in play.study.place.trials.rglob("last/*/*")))
    assert max(used) <= 4000
    assert any("budget.disk_gb" in row.cause for row in play.search.trials())


def test_what_is_queued_by_hand_starts_where_a_new_trial_would(played: Play) -> None:
    for _ in range(3):
        played.play(played.next())
    number = played.search.enqueue({"learning_rate": 1e-3})
    assert [played.next().number, played.next().number] == [0, number], "a promotion comes before any new trial"


class InTurns(Strategy):
    """Pauses at every evaluation; the trial with the fewest goes on; new ones have the first configuration drawn."""

    def report(self, event: Evaluated, seen: Seen) -> Ruling:
        return Ruling("pause", f"{event.number} of {seen.evaluations}")

    def ask(self, seen: Seen) -> Next | None:
        if seen.room:
            return Next(why="another", configuration=seen.draw(3)[0])
        paused = sorted(seen.paused, key=lambda course: (course.evaluation, course.number))
        return Next(paused[0].number, "its turn") if paused else None


def test_a_strategy_chooses_configurations_and_whose_turn_it_is_and_says_why(project: Path) -> None:
    play = Play(project, budget={"trials": 2})
    play.strategy = InTurns()
    play.open()
    rows = play.run()
    turns = [(0, 0, 1), (1, 0, 1)] + [(n, k, k + 1) for k in range(1, EVALUATIONS) for n in (0, 1)]
    assert [str(row.ending) for row in rows] == ["complete"] * 2 and play.stints == turns
    assert rows[0].decisions[:3] == (
        Decision(0, "start", "another"),
        Decision(1, "pause", "1 of 9"),
        Decision(1, "continue", "its turn"),
    )
    course = play.search._seen().courses[0]
    assert course.seconds == dict.fromkeys(range(1, EVALUATIONS + 1), 10.0) and course.start_seconds == 2.0
    assert rows[0].seconds == EVALUATIONS * 12.0


def test_a_trial_that_crashes_while_it_pauses_pauses_again_when_it_is_retried(project: Path) -> None:
    play = Play(project, retries={"crash": 1})
    common: dict[str, Any] = {"trial": 0, "at": 1.0, "step": 1}
    evaluated = Evaluated(number=1, epoch=1.0, metrics={"eval_score": 0.5}, values=(0.5,), **common)
    for ending, cause in ((Ending.failed, "no"), (Ending.stopped, "")):
        spec = play.next()
        play.handle(Started(trial=0, at=0.0, attempt=spec.attempt))
        assert play.handle(evaluated) == "stop"
        reason = Reason.crash if cause else None
        play.handle(Finished(trial=0, at=2.0, ending=ending, reason=reason, cause=cause))
    row = play.search.row(0)
    assert (row.ending, row.attempts, answers(row)) == (Ending.paused, 2, [(1, "pause")])


def test_trials_that_paused_are_trained_to_their_end_once_the_study_has_no_pruner(project: Path) -> None:
    play = Play(project, budget={"trials": 3})
    for _ in range(3):
        play.play(play.next())
    assert Ending.paused in {row.ending for row in play.search.trials()}
    play.study = play.study.model_copy(update={"pruner": PrunerSpec()}).at(project)
    play.open()
    assert [str(row.ending) for row in play.run()] == ["complete"] * 3


def test_a_used_up_space_ends_the_study_once_nobody_may_go_on(project: Path) -> None:
    space = {"learning_rate": {"choices": [1e-4, 3e-4, 1e-3, 3e-3]}}
    play = Play(project, space=space, sampler={"type": "grid"}, budget={}, pruner={**HALVING, "reduction_factor": 2})
    rows = play.run()
    assert sorted(row.params["learning_rate"] for row in rows) == space["learning_rate"]["choices"]
    assert {row.params["learning_rate"]: str(row.ending) for row in rows}[1e-3] == "complete"


@pytest.mark.parametrize("promote", [False, True])
def test_tpe_proposes_after_trials_of_several_goals_were_pruned_or_paused(project: Path, promote: bool) -> None:
    goals = [{"metric": "eval_score", "direction": "maximize"}, {"metric": "eval_cost", "direction": "minimize"}]
    play = Play(
        project,
        objective={"metrics": goals, "prune_on": "eval_score"},
        pruner={"type": "asha", "min_resource": 1, "reduction_factor": 2, "promote": promote},
        budget={"trials": 8},
    )
    while (row := play.search.ask()) is not None:
        number, word = max(row.intermediate, default=0), "continue"
        while word == "continue" and number < 4:
            number += 1
            values = (row.params["learning_rate"] * number, -float(number))
            event = Evaluated(
                trial=row.number,
                at=0,
                number=number,
                step=number,
                epoch=number,
                metrics={},
                values=values,
                final=number == 4,
            )
            word = play.search.report(event)
        ending = {"pause": Ending.paused, "prune": Ending.pruned}.get(word, Ending.complete)
        play.search.tell(Finished(trial=row.number, at=0, ending=ending))
    assert len(play.search.trials()) == 8
    cut = Ending.paused if promote else Ending.pruned
    assert {row.ending for row in play.search.trials()} == {cut, Ending.complete}
