"""What freeze-thaw decides, and why: on made-up courses, without a study."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

import numpy as np
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from scipy.integrate import quad
from scipy.stats import norm

from making import toy_study
from sweepkit.search.curves import CurveModel, Points, log_expected_improvement, scores
from sweepkit.search.freeze_thaw import FreezeThaw, _Cube, _View, pauses
from sweepkit.search.promotion import Promotion
from sweepkit.search.standing import Course, Standing
from sweepkit.search.strategies import wants_more
from sweepkit.search.strategy import Next, Seen, TimeLeft
from sweepkit.study.configurations import Configuration
from sweepkit.trial.events import Evaluated
from sweepkit.trial.trial import Ending

WHOLE = 5
SPACE: dict[str, BaseDistribution] = {
    "rate": FloatDistribution(1e-5, 1e-1, log=True),
    "layers": IntDistribution(1, 8),
    "optim": CategoricalDistribution(["adam", "sgd"]),
    "beta": FloatDistribution(0.0, 1.0),  # of adam alone
}


def loss(params: Mapping[str, Any], evaluation: int) -> float:
    """The best rate is 1e-3; sgd ends worse."""
    away = (math.log10(params["rate"]) + 3) ** 2 / 4 + 0.02 * params["layers"] + 0.5 * (params["optim"] == "sgd")
    return away + 1.0 / evaluation


def rate_share(params: Mapping[str, Any]) -> float:
    return (math.log10(params["rate"]) + 5) / 4


def drawn(dice: Random) -> dict[str, Any]:
    optim = dice.choice(["adam", "sgd"])
    found = {"rate": 10 ** dice.uniform(-5, -1), "layers": dice.randint(1, 8), "optim": optim}
    return {**found, **({"beta": dice.random()} if optim == "adam" else {})}


def course(number: int, params: Mapping[str, Any], evaluation: int, ending: Ending = Ending.paused) -> Course:
    return Course(
        number=number,
        ending=Ending.complete if evaluation == WHOLE else ending,
        spared=number == 0,
        params=params,
        drawn=params,
        values={n: loss(params, n) for n in range(1, evaluation + 1)},
        seconds={1: 10.0},
        start_seconds=5.0,
    )


def seen(courses: Sequence[Course], *, room: bool = True, time: TimeLeft | None = None) -> Seen:
    def draw(count: int, near: Sequence[Mapping[str, Any]] = ()) -> list[Configuration]:
        dice = Random(len(courses))
        found = [drawn(dice) for _ in range(count)]
        return [Configuration(each, each) for each in found]

    return Seen(
        courses={each.number: each for each in courses},
        room=room,
        evaluations=WHOLE,
        key=lambda value: -math.inf if math.isnan(value) else -value,
        draw=draw,
        time=time,
    )


def history(count: int = 12) -> list[Course]:
    """Return a complete baseline and trials that paused after one evaluation."""
    dice = Random(1)
    return [course(0, drawn(dice), WHOLE), *(course(number, drawn(dice), 1) for number in range(1, count))]


def ask(view: Seen, **options: Any) -> Next:
    found = FreezeThaw(SPACE, **options).ask(view)
    assert found is not None
    return found


def test_a_trial_pauses_early_and_never_at_its_end() -> None:
    assert [pauses(whole) for whole in (1, 2, 3, 10)] == [[], [1], [1, 2], [1, 2, 4, 6]]


@pytest.mark.parametrize("z", [3.0, 0.0, -2.0, -3.9, -4.1, -6.0])
def test_the_expected_improvement_is_the_integral_it_stands_for(z: float) -> None:
    wanted = quad(lambda x: (x - 1.0) * norm.pdf(x, 1.0 + 2.0 * z, 2.0), 1.0, 30.0, epsabs=0, epsrel=1e-9, limit=200)[0]
    found = log_expected_improvement(np.array([1.0 + 2.0 * z]), np.array([2.0]), 1.0)
    assert float(np.exp(found[0])) == pytest.approx(wanted, rel=1e-5)


def test_far_below_the_best_the_improvement_still_has_an_order() -> None:
    found = log_expected_improvement(np.array([-10.0, -30.0, -1e5]), np.ones(3), 0.0)
    assert np.isfinite(found).all() and found[0] > found[1] > found[2]


def test_the_model_knows_the_end_of_a_curve_from_its_beginning_and_those_of_others() -> None:
    dice = Random(3)
    configurations = [drawn(dice) for _ in range(30)]
    ends = np.array([-loss(each, WHOLE) for each in configurations])
    rows = [(n, t) for n, each in enumerate(configurations) for t in (range(1, 6) if n < 20 else [1])]
    places = np.array([[rate_share(each), each["layers"] / 8, each["optim"] == "sgd"] for each in configurations])
    values = scores(np.array([-loss(configurations[n], t) for n, t in rows]))
    numbers = np.array([n for n, _ in rows])
    points = Points(places[numbers], np.log1p([t for _, t in rows]) / np.log1p(WHOLE), numbers, np.zeros(len(rows)))
    model = CurveModel(points, values, [0, 1, 2])
    mean, deviation = model.predict(Points(places[20:], np.ones(10), np.arange(20, 30), np.zeros(10)))
    blind, wide = model.predict(Points(places[20:], np.ones(10), -1 - np.arange(10), np.zeros(10)))
    assert np.corrcoef(mean, ends[20:])[0, 1] > 0.95
    assert (deviation < wide).all(), "a trial's own beginning tells more than its configuration"
    assert np.corrcoef(blind, ends[20:])[0, 1] > 0.8


def test_a_decision_follows_from_what_is_stored_alone() -> None:
    views = [seen(history(count)) for count in (9, 10, 11, 12)]
    used = FreezeThaw(SPACE)
    decisions = [used.ask(view) for view in views]
    assert decisions == [ask(view) for view in views]
    assert used.ask(views[0]) == decisions[0]


def test_seconds_that_differ_from_run_to_run_change_no_decision() -> None:
    def timed(lap: float, start: float) -> list[Course]:
        return [replace(each, seconds={1: lap}, start_seconds=start) for each in history()]

    assert ask(seen(timed(10.0, 0.1))) == ask(seen(timed(8.0, 1.5))) == ask(seen(timed(10.0, 0.0)))
    assert ask(seen(timed(10.0, 5.0))) == ask(seen(timed(9.0, 6.0)))


def test_what_a_start_costs_is_rounded_to_powers_of_two() -> None:
    def rest(start: float) -> float:
        view = _View(seen([replace(each, start_seconds=start) for each in history()]), _Cube(SPACE, ()))
        found = view.rate_paused()
        assert found is not None
        return found.cost

    assert (rest(0.0), rest(5.0), rest(6.0), rest(160.0)) == (4.0, 4.5, 4.5, 20.0)


def test_the_first_trials_are_the_samplers() -> None:
    assert ask(seen(history(7))) == Next(why="one of the first trials, at random")
    assert ask(seen([])) == Next(why="one of the first trials, at random")


def test_it_says_what_is_expected_in_the_metrics_own_unit() -> None:
    found = ask(seen(history(), room=False))
    assert found.number is not None
    assert found.why.startswith("continued after evaluation 1: expected 0.") and "the best trial's is 0." in found.why


def test_the_most_promising_paused_trial_goes_on() -> None:
    courses = history()
    best = min(courses[1:], key=lambda each: loss(each.drawn, WHOLE))
    assert ask(seen(courses, room=False)).number == best.number


def test_slots_that_are_free_at_once_do_not_try_the_same() -> None:
    courses, started = history(), []
    for _ in range(8):
        found = ask(seen(courses))
        if found.number is not None:
            courses = [replace(c, ending=Ending.running) if c.number == found.number else c for c in courses]
        else:
            assert found.configuration is not None
            started.append(found.configuration.params)
            courses.append(course(len(courses), found.configuration.params, 0, Ending.running))
    rates = sorted(rate_share(each) for each in started)
    assert len({each["rate"] for each in started}) == len(started) >= 3 and rates[-1] - rates[0] > 0.05


def test_what_diverged_or_did_not_fit_keeps_others_away() -> None:
    courses = history(16)
    courses[0] = course(0, {"rate": 1e-4, "layers": 4, "optim": "sgd"}, WHOLE)
    for number, each in enumerate(courses):
        if each.drawn["optim"] == "adam":
            ending = (Ending.diverged, Ending.infeasible)[number % 2]
            courses[number] = replace(each, ending=ending, values={})
    found = ask(seen(courses))
    chosen = found.configuration.params if found.configuration else courses[found.number or 0].drawn
    assert chosen["optim"] == "sgd"


def test_once_no_trial_may_start_the_wanted_number_is_finished_and_then_nothing() -> None:
    courses = history()
    for _ in range(20):
        found = FreezeThaw(SPACE, least=3).ask(seen(courses, room=False))
        if found is None:
            break
        courses = [course(c.number, c.drawn, WHOLE) if c.number == found.number else c for c in courses]
    complete = [each for each in courses if each.ending is Ending.complete and not each.spared]
    assert found is None and 3 <= len(complete) < len(courses) - 1


def test_the_last_digits_of_a_plateau_are_not_searched() -> None:
    courses = history(9)
    plateau = [
        replace(course(n, drawn(Random(n)), 3), values=dict.fromkeys((1, 2, 3), 2.0 + 1e-6 * (n % 3)))
        for n in range(9, 20)
    ]
    found = ask(seen([*courses, *plateau]))
    assert found.number is None or found.number < 9


def test_a_value_that_is_no_number_counts_as_worst() -> None:
    courses = history()
    broken = replace(courses[3], values={1: math.nan})
    assert ask(seen([*courses[:3], broken, *courses[4:]], room=False)).number != 3


def test_more_trials_than_points_are_thinned_out_and_a_space_of_nothing_is_one_place() -> None:
    assert FreezeThaw(SPACE).ask(seen(history(400))) is not None
    assert FreezeThaw({}).ask(seen(history(), room=False)) is not None


def test_what_earlier_studies_expect_counts_for_as_long_as_it_is_true() -> None:
    rng = np.random.default_rng(0)
    places, hints = rng.random((40, 2)), np.linspace(-2.0, 2.0, 40)
    asked = Points(rng.random((2, 2)), np.ones(2), np.array([-1, -2]), np.array([2.0, -2.0]))

    def apart(truth: np.ndarray) -> float:
        model = CurveModel(Points(places, np.ones(40), np.arange(40), hints), truth, [0, 1])
        better, worse = model.predict(asked)[0]
        return float(better - worse)

    assert apart(hints) > 3.0
    assert abs(apart(rng.permutation(hints))) < 0.8, "ranks that say nothing lose their weight"
    assert apart(-hints) < -1.0


def test_earlier_ranks_lead_to_where_they_were_good() -> None:
    dice = Random(3)
    ranked = sorted((drawn(dice) for _ in range(40)), key=lambda params: loss(params, WHOLE))
    earlier = list(zip(ranked, np.linspace(2.0, -2.0, 40), strict=True))
    low = [{**drawn(dice), "rate": 10 ** dice.uniform(-5, -4.5)} for _ in range(9)]
    view = seen([course(n, params, 1 if n else WHOLE) for n, params in enumerate(low)])
    told, blind = ask(view, earlier=earlier), ask(view)
    assert told.configuration is not None and abs(rate_share(told.configuration.params) - 0.5) < 0.1
    assert blind.configuration is None or abs(rate_share(blind.configuration.params) - 0.5) > 0.1


def test_it_ends_when_nothing_more_is_worth_its_hours() -> None:
    whole = [course(0, history()[0].params, WHOLE), *(course(n, history()[n].params, WHOLE) for n in range(1, 12))]
    found = ask(seen(whole), worth=1e6)
    assert found.ends and found.why.startswith("budget.worth: the expected improvement is ")
    assert found.why.endswith(" per hour, less than 1e+06")
    assert not ask(seen(whole), worth=1e-6).ends
    assert not ask(seen(history()), worth=1e6, least=3).ends, "so many trials are trained to their end first"
    assert ask(seen(history()), worth=1e6, least=3).number is not None
    unmeasured = [replace(each, seconds={}) for each in whole]
    assert not ask(seen(unmeasured), worth=1e6).ends, "nobody knows what an hour brings"


def at_chance(digits: Random) -> Seen:
    """Return trials most of which, the first ones too, are at one level but for the last digits."""
    dice, courses = Random(5), []
    for number in range(20):
        level = 0.693 if number % 3 else 0.8 + dice.random()
        evaluation = WHOLE if number == 1 else 3 if number % 3 else 1
        values = {at: level + digits.uniform(-1e-4, 1e-4) for at in range(1, evaluation + 1)}
        courses.append(replace(course(number, drawn(dice), evaluation), values=values))
    return seen(courses)


def test_where_most_trials_are_at_one_level_its_last_digits_decide_nothing() -> None:
    decisions = [ask(at_chance(Random(seed))) for seed in range(4)]
    assert len({(each.number, str(each.configuration)) for each in decisions}) == 1


def test_when_no_whole_training_fits_into_the_time_left_what_is_paused_is_finished() -> None:
    courses, whole = history(), 5 * 10.0 + 5.0  # seconds of five evaluations and a start
    for seconds, started in ((9 * whole, True), (1.05 * whole, False)):
        time = TimeLeft(seconds, 0.0)
        chosen = [ask(seen(courses[:count], time=time)).number is None for count in range(9, 13)]
        assert chosen == [started] * 4


def test_a_new_trial_leaves_the_time_to_finish_as_many_as_are_to_be_confirmed() -> None:
    view, whole = seen(history()), 1.1 * 55.0
    assert [replace(view, time=TimeLeft(n * whole + 1, 1e3)).may_start(3) for n in (1, 3, 4)] == [False, False, True]
    running = [replace(each, ending=Ending.running) if each.number == 4 else each for each in history()]
    assert replace(seen(running), time=TimeLeft(2 * whole + 1, 1e3)).may_start(3), (
        "two are missing, two slots finish them"
    )
    alone = [course(0, drawn(Random(1)), WHOLE)]
    assert replace(seen(alone), time=TimeLeft(whole + 1, 1e3)).may_start(3), "nothing waits to be finished"


def test_a_trial_that_cannot_be_finished_in_time_is_left_and_does_not_count_as_the_one_to_beat() -> None:
    slow = [replace(each, seconds={1: 100.0}) if each.number % 2 else each for each in history()]
    time = TimeLeft(100.0, 0.0)  # 4 evaluations of 10 s and a start fit, 4 of 100 s do not
    view = seen(slow, room=False, time=time)
    assert {each.number for each in view.in_time.paused} == {2, 4, 6, 8, 10}
    chosen = ask(view).number
    assert chosen is not None and chosen % 2 == 0
    assert FreezeThaw(SPACE).ask(seen(slow, room=False, time=TimeLeft(20.0, 0.0))) is None


def test_once_nothing_may_start_a_trial_that_runs_is_judged_alone() -> None:
    courses = history()
    best = min(courses[1:], key=lambda each: loss(each.drawn, WHOLE)).number
    worst = max(courses[1:], key=lambda each: loss(each.drawn, WHOLE)).number
    view = seen(courses, time=TimeLeft(0.0, 300.0))
    assert [each.number for each in view.with_paused(best).paused] == [best]
    assert ask(view.with_paused(best), least=1).number == best
    complete = [replace(each, spared=False) for each in courses]
    assert FreezeThaw(SPACE).ask(seen(complete, time=TimeLeft(0.0, 300.0)).with_paused(worst)) is None


def test_what_evaluations_and_starts_take_is_kept_while_courses_change() -> None:
    dice, courses = Random(0), dict[int, Course]()
    standing = Standing(seen([]).key, courses)
    for _ in range(300):
        old = courses.get(number := dice.randrange(12))
        new = course(number, {"rate": 1e-3, "layers": 1, "optim": "sgd"}, dice.randint(0, 4))
        times = {n: dice.uniform(0, 9) for n in range(1, new.evaluation + 1)}
        times |= dict(old.seconds) if old and dice.random() < 0.5 else {}
        ending = dice.choice([Ending.paused, Ending.running, Ending.complete])
        new = replace(new, ending=ending, seconds=times, start_seconds=dice.choice([None, dice.uniform(0, 9)]))
        courses[number] = new
        standing.change(old, new)
        firsts = [c.seconds[1] for c in courses.values() if c.seconds]
        laps = [s for c in courses.values() for n, s in c.seconds.items() if n > 1] or firsts
        starts = [c.start_seconds for c in courses.values() if c.start_seconds is not None]
        assert standing.pace.lap == (pytest.approx(median(laps)) if laps else None)
        assert standing.pace.start_cost == pytest.approx(median(starts) / median(laps) if starts and laps else 0.0)
        running = [c.number for c in courses.values() if c.ending is Ending.running]
        paused = [c.number for c in courses.values() if c.ending is Ending.paused]
        assert standing.running == len(running)
        assert sorted(number for ranks in standing.paused.values() for _, number in ranks) == sorted(paused)


def test_gpu_hours_are_shared_by_the_trials_that_run() -> None:
    time, running = (
        TimeLeft(math.inf, 10.0, together=600.0),
        [course(n, drawn(Random(n)), 1, Ending.running) for n in (0, 1)],
    )
    assert replace(seen(history(), time=time))._left == TimeLeft(600.0, 10.0)
    assert replace(seen(running, time=time))._left == TimeLeft(200.0, 10.0)


def test_while_nothing_but_the_baseline_could_be_confirmed_a_trial_starts_whatever_the_time() -> None:
    baseline = course(0, drawn(Random(1)), WHOLE)
    lost = replace(course(1, drawn(Random(2)), 1), ending=Ending.pruned)
    assert seen([baseline, lost], time=TimeLeft(1.0, 0.0)).may_start(1)
    assert not seen([baseline, course(1, drawn(Random(2)), 1)], time=TimeLeft(60.0, 0.0)).may_start(1)


def test_a_first_evaluation_that_takes_long_says_how_slow_a_trial_is_beside_others() -> None:
    usual = [replace(course(n, drawn(Random(n)), 3), seconds={1: 30.0, 2: 10.0, 3: 12.0}) for n in range(3)]
    slow = replace(course(3, drawn(Random(3)), 1), seconds={1: 90.0})
    pace = seen([*usual, slow]).standing.pace
    assert (pace.lap, pace.whole(5)) == (11.0, 5.0 + 30.0 + 4 * 11.0)
    assert (pace.rest(slow, 2), pace.rest(usual[0], 2)) == (2 * 11.0 * 3, 22.0)


def test_a_trial_is_spared_for_the_confirmation_only_if_it_can_be_finished(project: Path) -> None:
    study = toy_study(project, confirm={"top": 3, "seeds": 2}, budget={"hours": 1.0})
    running = [course(0, drawn(Random(0)), WHOLE), *(course(n, drawn(Random(n)), 1, Ending.running) for n in (1, 2))]
    answers = [wants_more(study, seen(running, time=TimeLeft(0.0, grace)), 1, 2) for grace in (1e3, 40.0)]
    assert answers == [True, False], "four evaluations of ten seconds do not fit into forty, with what is put aside"
    assert not wants_more(study, seen(running, time=TimeLeft(1e4, 0.0)), 1, 2), "enough others come"


def curve(number: int, *losses: float) -> Course:
    return replace(course(number, drawn(Random(number)), len(losses)), values=dict(enumerate(losses, 1)))


def evaluated(number: int) -> Evaluated:
    return Evaluated(trial=9, at=0.0, number=number, step=number, epoch=number, metrics={}, values=(1.0,))


@pytest.mark.parametrize(
    ("baseline", "answers"),
    [
        ((1.0, 1.0, 0.6, 0.3, 0.1), ["continue", "continue", "pause"]),  # stood with the others until the third
        ((1.0, 1.0, 1.0, 1.0, 1.0), ["pause", "pause", "pause"]),  # never left their level
        ((0.8, 0.6, 0.4, 0.3, 0.1), ["pause", "pause", "pause"]),  # was ahead at once
        ((1.2, 1.1, 0.6, 0.3, 0.1), ["continue", "continue", "pause"]),  # was behind at first
    ],
)
def test_a_trial_does_not_pause_where_the_best_one_looked_like_any_other(
    baseline: Sequence[float], answers: Sequence[str]
) -> None:
    others = [curve(n, 1.0 + 0.01 * (n % 3 - 1)) for n in range(1, 8)]
    view = seen([curve(0, *baseline), *others, curve(9, 1.0, 1.0, 1.0)])
    assert [FreezeThaw(SPACE).report(evaluated(number), view).answer for number in (1, 2, 3)] == answers
    assert FreezeThaw(SPACE).report(evaluated(1), seen(others)).answer == "pause"


def test_a_best_trial_that_ended_early_or_others_without_a_value_do_not_matter_to_pauses() -> None:
    early = replace(curve(0, 1.0, 0.1), ending=Ending.complete)
    others = [curve(n, 1.0 if n % 2 else math.nan) for n in range(1, 8)]
    view = seen([early, *others, curve(9, 1.0, 1.0, 1.0)])
    assert [FreezeThaw(SPACE).report(evaluated(n), view).answer for n in (1, 2, 3)] == ["continue", "pause", "pause"]
    nothing = replace(curve(0), ending=Ending.complete)
    assert FreezeThaw(SPACE).report(evaluated(1), seen([nothing, *others])).answer == "pause"


def test_promotion_uses_the_rest_of_the_time_for_what_is_paused() -> None:
    courses = [replace(each, spared=False) for each in history()]
    promotion = Promotion({"min_resource": 1, "reduction_factor": 20})  # of twelve, none is to be promoted
    best = min(courses[1:], key=lambda each: each.values[1]).number
    found = {left: promotion.ask(seen(courses, time=TimeLeft(left, 0.0))) for left in (1e4, 55.0, 20.0)}
    assert found == {1e4: Next(), 55.0: Next(best, "the time left is too short for a new trial"), 20.0: None}
