"""Long studies: what is kept up to date gives the answers that going through all trials would, and nothing does that."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.samplers._tpe.sampler import _split_trials
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._storage import JournalOperation
from optuna.trial import TrialState, create_trial

from making import toy_study
from sweepkit.check import known_values
from sweepkit.check.rules.searching import check_searching
from sweepkit.search import folding, records
from sweepkit.search.history import History
from sweepkit.search.private import trial_id
from sweepkit.search.proposer import Proposer
from sweepkit.search.pruning import Pruning
from sweepkit.search.records import Records
from sweepkit.search.search import Search
from sweepkit.search.storage import open_journal, open_storage
from sweepkit.search.strategy import Seen
from sweepkit.search.window import BETTER, Window
from sweepkit.study.samplers import make_pruner, resolve_auto
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Evaluated, Finished

HALVING = {"min_resource": [1, 2, "auto"], "reduction_factor": [2, 3, 4], "min_early_stopping_rate": [0, 1]}
LIKE_MEDIAN = {
    "n_startup_trials": [0, 1, 4],
    "n_warmup_steps": [0, 2],
    "interval_steps": [1, 2],
    "n_min_trials": [1, 3],
}
PRUNERS: dict[str, dict[str, list[Any]]] = {
    "asha": HALVING,
    "hyperband": {"min_resource": [1, 2], "max_resource": ["auto", 1, 4, 9], "reduction_factor": [2, 3]},
    "median": LIKE_MEDIAN,
    "percentile": {"percentile": [0.0, 25.0, 70.0, 100.0], **LIKE_MEDIAN},
}


def seen(evaluations: int | None) -> Seen:
    return Seen(courses={}, room=True, evaluations=evaluations, key=lambda value: value, draw=lambda *_: [])


def play(study: StudyData, dice: random.Random) -> Iterator[tuple[Any, Any]]:
    """Play a random history on the study; yield the answer of Optuna's pruner, and the kept values', at each evaluation."""
    search = Search(study, InMemoryStorage(), Proposer(study, {}))
    storage, spec, last = search.records.storage, study.pruner, dice.randint(1, 9)

    def made(evaluations: int | None) -> optuna.pruners.BasePruner:
        return make_pruner(spec.kind, resolve_auto(spec.kind, spec.options, evaluations))

    optunas = Pruning(search.records, search._proposals.pruner_view, made)
    domain = {"x": FloatDistribution(0, 1)}
    running: dict[int, int] = {}
    for _ in range(150):
        if len(running) < 4 and dice.random() < 0.4:
            template = create_trial(
                state=TrialState.RUNNING, params={"x": 0.5}, distributions=domain, user_attrs={"hyperparameters": {}}
            )
            running[search.records.add(template).number] = 0
        if not running:
            continue
        number = dice.choice(list(running))
        running[number] += dice.random() < 0.95  # else the evaluation is repeated, as after a kill
        at, trial = max(1, running[number]), search.records.get(number)
        value = dice.choice(
            [dice.gauss(0, 1), float(dice.randint(-2, 2)), *([math.nan, math.inf, -math.inf] * (dice.random() < 0.1))]
        )
        storage.set_trial_intermediate_value(trial_id(trial), at, value)
        event = Evaluated(trial=number, at=0, number=at, step=at, epoch=at, metrics={}, values=(value,))
        evaluations = dice.choice([None, last])
        kept = search._strategy if dice.random() < 0.9 else search._decide_by()  # now and then a new process
        answer = kept.report(event, seen(evaluations))
        yield optunas.report(event, seen(evaluations)), answer
        search.records.attach(trial, answer.written)
        if answer.answer == "prune" and dice.random() < 0.9:
            storage.set_trial_state_values(trial_id(trial), TrialState.PRUNED)
            del running[number]
        elif at >= last or dice.random() < 0.05:
            failed = dice.random() < 0.1
            storage.set_trial_state_values(
                trial_id(trial), TrialState.FAIL if failed else TrialState.COMPLETE, None if failed else [0.0]
            )
            del running[number]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # Optuna's, about values that are not finite
@pytest.mark.parametrize("histories", [3, pytest.param(600, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", PRUNERS)
def test_kept_values_decide_as_optuna_s_pruners_do(project: Path, kind: str, histories: int) -> None:
    pruned = 0
    for seed in range(histories):
        dice = random.Random(seed)
        options = {
            name: dice.choice(values)
            for name, values in PRUNERS[kind].items()
            if dice.random() < 0.8 or name == "percentile"
        }
        objective = {
            "metric": "eval_score",
            "direction": dice.choice(["maximize", "minimize"]),
            "value": dice.choice(["best", "last", "mean(2)"]),
        }
        study = toy_study(project, pruner={"type": kind, **options}, objective=objective, budget={"trials": 500})
        for optunas, kept in play(study, dice):
            assert (kept.answer, kept.written) == (optunas.answer, optunas.written), (seed, options)
            pruned += kept.answer == "prune"
    assert pruned > histories


def promoted(seen: Seen, factor: int) -> tuple[int | None, dict[int, str]]:
    """Return the paused trial that goes on, if one does, and where each paused one stands, by looking at all trials."""
    places: dict[int, str] = {}
    going: set[int] = set()
    paused = [course for course in seen.courses.values() if course.ending == "paused"]
    for rung in {course.evaluation for course in paused}:
        worth = {c.number: seen.key(c.values[rung]) for c in seen.courses.values() if rung in c.values}
        ranked = sorted(worth, key=lambda number: (-worth[number], number))
        best = [number for number in ranked[: len(ranked) // factor] if worth[number] > -math.inf]
        going.update(c.number for c in paused if c.evaluation == rung and c.number in best)
        for place, number in enumerate(ranked, 1):
            text = f"{place} of {len(ranked)} after evaluation {rung}, of which {len(best)} may continue"
            places |= {number: text} if seen.courses[number].evaluation == rung else {}
    order = sorted(paused, key=lambda c: (-c.evaluation, -seen.key(c.values[c.evaluation]), c.number))
    assert [course.number for course in seen.paused] == [course.number for course in order]
    return next((course.number for course in order if course.number in going), None), places


@pytest.mark.parametrize("histories", [4, pytest.param(300, marks=pytest.mark.slow)])
def test_kept_places_promote_as_a_look_at_all_trials_does(project: Path, histories: int) -> None:
    went_on = stayed = 0
    for seed in range(histories):
        dice = random.Random(seed)
        factor, direction = dice.choice([2, 3]), dice.choice(["maximize", "minimize"])
        study = toy_study(
            project,
            pruner={"type": "asha", "promote": True, "min_resource": 1, "reduction_factor": factor},
            objective={"metric": "eval_score", "direction": direction, "value": dice.choice(["best", "last"])},
            budget={"trials": 60},
            baseline={"learning_rate": 1e-3},
        )
        search = Search(study, InMemoryStorage(), Proposer(study, {}))
        running: dict[int, int] = {}
        for _ in range(200):
            if len(running) < 4 and dice.random() < 0.4 and (trial := search.ask()):
                running[trial.number] = max(trial.intermediate, default=0)
            if not running:
                continue
            number = dice.choice(list(running))
            if failed := dice.random() < 0.03:
                search.tell(Finished(trial=number, at=0, ending="failed"))
                if dice.random() < 0.5:
                    search.retry([number])
            else:
                repeated = dice.random() < 0.1 and running[number] > 0  # as after a kill
                at = running[number] = running[number] + (not repeated)
                value = dice.choice([dice.gauss(0, 1), float(dice.randint(-2, 2)), math.nan])
                known = search.records.get(number).intermediate_values.get(at)
                event = Evaluated(
                    trial=number, at=0, number=at, step=at, epoch=at, metrics={}, values=(value,), final=at == 9
                )
                word = search.report(event if known is None else replace(event, values=(known,)))
                if word == "pause" or at == 9:
                    ending = "paused" if word == "pause" else "complete"
                    search.tell(Finished(trial=number, at=0, ending=ending, values=(0.5,)))
            if failed or word == "pause" or at == 9:
                del running[number]
            now = search._seen()
            expected, places = promoted(now, factor)
            chosen = search._strategy.ask(now)
            assert chosen is None or chosen.number == expected or (expected is None and not now.room), seed
            went_on += expected is not None
            for course in now.paused[:3]:
                assert search._strategy._rank(now, course.evaluation, course.number) == places[course.number]
                stayed += 1
    assert went_on > histories and stayed > 20 * histories


def history_of(storage: BaseStorage, count: int, dice: random.Random, study: StudyData) -> Search:
    """Return a search of so many trials that ended in every way, some paused."""
    search = Search(study, storage, Proposer(study, {}))
    domain = {"learning_rate": FloatDistribution(1e-4, 1e-2, log=True)}
    for number in range(count):
        state = dice.choice([TrialState.COMPLETE] * 3 + [TrialState.PRUNED] * 4 + [TrialState.RUNNING, TrialState.FAIL])
        rate = 10 ** dice.uniform(-4, -2)
        attributes: dict[str, Any] = {"hyperparameters": {"learning_rate": rate}, "origin": "sampled"}
        if state == TrialState.RUNNING and dice.random() < 0.5:
            attributes["ending"] = "paused"
        if state == TrialState.COMPLETE and dice.random() < 0.05:
            attributes["partial"] = True
        steps = dice.randint(0 if state != TrialState.COMPLETE else 1, 4)
        values = {step: dice.choice([math.nan, round(dice.gauss(0, 1), 1)]) for step in range(1, steps + 1)}
        violated = dice.random() < 0.1
        template = create_trial(
            state=state,
            value=round(dice.gauss(0, 1), 1) if state == TrialState.COMPLETE else None,
            params={"learning_rate": rate},
            distributions=domain,
            user_attrs=attributes,
            system_attrs={"constraints:fits": 1.0 if violated else -1.0} if state.is_finished() else {},
            intermediate_values=values,
        )
        search.records.add(template)
        if dice.random() < 0.05:
            search._proposals.view(records.blank(number + 1, -1))._trials()  # what is known so far is kept
    return search


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize("count", [200, 900])
def test_tpe_sees_its_better_part_and_the_newest_of_the_others(project: Path, count: int, direction: str) -> None:
    study = toy_study(project, objective={"metric": "eval_score", "direction": direction}, sampler={"type": "tpe"})
    search = history_of(InMemoryStorage(), count, random.Random(count), study)
    everything = search._proposals.view(records.blank(count, -1))._trials()
    learnt = [t for t in everything if t.state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)]
    better, others = _split_trials(search.records.study(), learnt, BETTER)
    window = Window(search._history, maximize=direction == "maximize")
    for newest in (40, 300, 5000):
        shown = window.of(search._proposals._read(), newest)
        if newest == 5000:
            assert shown == everything
        elif newest < len(others):
            assert shown == sorted(better + others[-newest:], key=lambda trial: trial.number)


def test_samplers_see_what_is_stored_in_every_ending(project: Path) -> None:
    study = toy_study(project, sampler={"type": "tpe"})
    search = history_of(InMemoryStorage(), 150, random.Random(1), study)
    stored = search.records.storage.get_all_trials(0, deepcopy=False)
    shown = search._proposals.view(records.blank(150, -1))._trials()
    plain = [search._proposals.judge(trial) for trial in stored if not trial.user_attrs.get("partial")]
    assert [vars(trial) for trial in shown] == [vars(trial) for trial in plain]


def test_a_window_below_250_or_of_another_sampler_is_refused(project: Path) -> None:
    for kind, window, said in (("tpe", 249, "250 or more"), ("random", 500, "no such option"), ("tpe", 250, "")):
        found = check_searching(toy_study(project, sampler={"type": kind, "window": window}))
        assert [said in problem.message for problem in found] == ([True] if said else [])


def replayed(path: Path) -> tuple[list[Any], list[Any]]:
    """Return the trials and studies of a journal, as Optuna reads them."""
    storage = JournalStorage(JournalFileBackend(str(path)))
    studies = storage.get_all_studies()
    return [[vars(t) for t in storage.get_all_trials(s._study_id)] for s in studies], [vars(s) for s in studies]


@pytest.mark.parametrize("seed", range(8))
def test_a_folded_journal_has_the_trials_of_the_plain_one(project: Path, seed: int) -> None:
    study, dice = toy_study(project), random.Random(seed)
    study.place.folder.mkdir(parents=True)
    storage = open_journal(study.place)
    studies = [
        storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE], name) for name in ("toy", "toy/confirm")
    ]
    domain = FloatDistribution(0, 1)
    trials: list[int] = []
    for _ in range(300):
        what = dice.random()
        trial = dice.choice(trials) if trials else -1
        try:
            if what < 0.2 or trial < 0:
                template = create_trial(
                    state=dice.choice([TrialState.RUNNING, TrialState.WAITING]),
                    user_attrs={"a": 1},
                    params={"x": 0.5},
                    distributions={"x": domain},
                )
                trials.append(storage.create_new_trial(dice.choice(studies), dice.choice([template, template, None])))
            elif what < 0.4:
                storage.set_trial_user_attr(trial, dice.choice("abc"), dice.random())
            elif what < 0.55:
                storage.set_trial_system_attr(trial, dice.choice("abc"), [dice.random()])
            elif what < 0.75:
                storage.set_trial_intermediate_value(trial, dice.randint(1, 4), dice.choice([dice.random(), math.nan]))
            elif what < 0.8:
                storage.set_trial_param(trial, "x", dice.random(), domain)
            elif what < 0.82:
                storage.set_study_user_attr(studies[0], "a", dice.random())
            else:
                state = dice.choice([TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
                storage.set_trial_state_values(trial, state, [dice.random()] if state == TrialState.COMPLETE else None)
        except optuna.exceptions.UpdateFinishedTrialError:
            pass
    if seed == 7:
        storage.delete_study(studies[1])
    opened = open_journal(study.place)
    found = opened.get_all_studies()
    again = [[vars(t) for t in opened.get_all_trials(s._study_id)] for s in found], [vars(s) for s in found]
    assert repr(again) == repr(replayed(study.place.journal))  # NaN is not equal to itself
    opened.set_study_user_attr(studies[0], "after", 1)
    storage.set_study_user_attr(studies[0], "other", 2)
    assert opened.get_study_user_attrs(studies[0]).items() >= {"after": 1, "other": 2}.items()


def test_the_codes_of_a_journal_are_optuna_s() -> None:
    names = (
        "CREATE_STUDY",
        "DELETE_STUDY",
        "CREATE_TRIAL",
        "SET_STATE",
        "SET_VALUE",
        "SET_USER_ATTR",
        "SET_SYSTEM_ATTR",
    )
    theirs = {"SET_STATE": "SET_TRIAL_STATE_VALUES", "SET_VALUE": "SET_TRIAL_INTERMEDIATE_VALUE"}
    for name in (*names, "SET_PARAM"):
        long = theirs.get(name, name.replace("SET_", "SET_TRIAL_"))
        assert getattr(folding, name) == JournalOperation[long]
    assert TrialState.RUNNING == folding.RUNNING
    assert {state for state in TrialState if state.is_finished()} == folding.FINISHED


@pytest.mark.parametrize("pruner", [{"type": "asha", "min_resource": 1}, {"type": "median"}, {"type": "hyperband"}])
def test_a_long_study_is_not_gone_through_at_an_evaluation(
    project: Path, monkeypatch: pytest.MonkeyPatch, pruner: dict[str, Any]
) -> None:
    monkeypatch.setattr(records, "LOOK", 0)
    study = toy_study(project, pruner=pruner, budget={"trials": 1000})
    study.place.folder.mkdir(parents=True)
    search = Search(study, open_storage(study.place, study), Proposer(study, known_values(study)))

    def one(last: int = 3) -> None:
        asked = search.ask()
        assert asked is not None
        for number in range(1, last + 1):
            values = (asked.params["learning_rate"],)
            search.report(
                Evaluated(trial=asked.number, at=0, number=number, step=number, epoch=number, metrics={}, values=values)
            )
        search.tell(Finished(trial=asked.number, at=0, ending="complete", values=values))

    for _ in range(30):
        one()
    monkeypatch.setattr(search.records.storage, "get_all_trials", None)  # it would raise
    for _ in range(3):
        one()
    stored = JournalStorage(JournalFileBackend(str(study.place.journal))).get_all_trials(0)
    known = search.records.all()
    assert [json.dumps(t.user_attrs) for t in known] == [json.dumps(t.user_attrs) for t in stored] and len(known) == 33
    assert [row.number for row in search.trials()] == list(range(33))


@pytest.mark.parametrize("look", [0, 10**9])
def test_a_search_reads_what_another_process_changed(project: Path, monkeypatch: pytest.MonkeyPatch, look: int) -> None:
    """``look`` 0: the open trials one by one; many: all again."""
    monkeypatch.setattr(records, "LOOK", look)
    study = toy_study(project)
    study.place.folder.mkdir(parents=True)
    first, second = (Records("toy", open_journal(study.place), study.objective.goals) for _ in range(2))
    history = History(second)
    for number in range(4):
        trial = first.add(create_trial(state=TrialState.RUNNING, user_attrs={"hyperparameters": {"x": number}}))
        assert [t.number for t in history.read()] == list(range(number + 1))
        first.note(trial, ending="running")
        assert history.read()[number].user_attrs["ending"] == "running"
        if number % 2:
            first.storage.set_trial_state_values(trial_id(trial), TrialState.PRUNED)
    history.read()
    assert history.running == {0, 2}
    assert history.changes(0)[1] == [0, 1, 2, 3] and history.changes(history.changes(0)[0])[1] == []
