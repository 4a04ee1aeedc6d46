"""The figures of a study made up in memory: what each shows, and that none of them fails on odd trials."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

from sweepkit.report import figures, style
from sweepkit.report.evidence import Course, Evidence, Stint
from sweepkit.report.figures import FIGURES
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Evaluated
from sweepkit.trial.trial import Ending, Trial, Turn

SPACE: dict[str, Any] = {
    "learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
    "task.x": {"low": 0.0, "high": 1.0},
    "optim": {"choices": {"adamw_torch": {"adam_beta2": {"low": 0.9, "high": 0.999}}, "adafactor": {}}},
    "per_device_train_batch_size": {"choices": [4, 8, 16], "role": "nuisance"},
}
TWO = {
    "metrics": [
        {"metric": "eval_score", "direction": "maximize"},
        {"metric": "eval_cost", "direction": "minimize"},
    ],
    "prune_on": "eval_score",
}


def study(**keys: Any) -> StudyData:
    whole = {
        "name": "toy",
        "task": {"path": "task.py:Toy"},
        "objective": {"metric": "eval_score", "direction": "maximize"},
        "space": SPACE,
        "budget": {"trials": 20},
        "tracking": {"uri": "none"},
        **keys,
    }
    return StudyData.model_validate(whole).at(Path("/nowhere"))


def trial(number: int, *values: float, ending: Ending = Ending.complete, **facts: Any) -> Trial:
    """Return a trial whose configuration follows from its number; odd ones are of the branch without a beta."""
    drawn: dict[str, Any] = {
        "learning_rate": 10 ** (-4.5 + 0.2 * (number % 15)),
        "task.x": 0.1 + 0.05 * (number % 15),
        "optim": "adafactor" if number % 2 else "adamw_torch",
        "per_device_train_batch_size": (4, 8)[number % 2],
        **({} if number % 2 else {"adam_beta2": 0.91 + 0.005 * (number % 15)}),
    }
    return Trial(number=number, ending=ending, values=values, params=drawn, **{"drawn": drawn, **facts})


def evaluations(number: int, *values: float) -> Course:
    """Return a course with an evaluation every half epoch."""
    events = [
        Evaluated(trial=number, at=0, number=n, step=4 * n, epoch=n / 2, metrics={}, values=(value,))
        for n, value in enumerate(values, 1)
    ]
    return Course(evaluations=tuple(events), losses=((1, 2.0), (2, 1.5)))


def evidence(rows: Sequence[Trial], courses: dict[int, Course] | None = None, **keys: Any) -> Evidence:
    return Evidence(study(**keys), rows, courses=courses or {})


MIXED = [
    trial(0, 0.5, origin="baseline"),
    trial(1, 0.4, ending=Ending.pruned),
    trial(2, ending=Ending.failed, cause="RuntimeError: <boom>"),
    trial(3, 0.7),
    trial(4, ending=Ending.diverged),
    trial(5, 0.6),
    trial(6, ending=Ending.running),
]


def points(drawn: go.Figure, name: str) -> list[tuple[Any, Any]]:
    """Return the (x, y) of the traces of a name."""
    return [pair for trace in drawn.data if trace.name == name for pair in zip(trace.x, trace.y, strict=True)]


def test_the_history_marks_pruned_trials_at_their_value_and_those_without_at_the_worse_edge() -> None:
    drawn = figures.history(evidence(MIXED))
    edge = pytest.approx(0.5 - 0.06 * 0.2)
    assert drawn.layout.yaxis.range[0] == edge
    assert points(drawn, "complete") == [(0, 0.5), (3, 0.7), (5, 0.6)]
    assert points(drawn, "pruned") == [(1, edge)], "0.4 is below the range of the complete trials"
    assert points(drawn, "failed") == [(2, edge)]
    assert points(drawn, "diverged") == [(4, edge)]
    assert points(drawn, "best so far") == [(0, 0.5), (3, 0.7), (5, 0.7), (6, 0.7)]
    assert [(line.y0, line.y1) for line in drawn.layout.shapes] == [(0.5, 0.5)]
    assert sorted(note.text for note in drawn.layout.annotations) == ["<b>0.7000</b>", "baseline"]
    assert "RuntimeError: &lt;boom&gt;" in next(t for t in drawn.data if t.name == "failed").text[0]


def test_the_history_of_a_minimised_goal_has_its_edge_at_the_top() -> None:
    drawn = figures.history(evidence(MIXED, objective={"metric": "eval_loss", "direction": "minimize"}))
    assert points(drawn, "failed") == [(2, pytest.approx(0.7 + 0.06 * 0.3))], "the pruned one reached 0.4"
    assert points(drawn, "best so far") == [(n, 0.5) for n in (0, 3, 5, 6)]


def test_the_history_of_the_second_goal_has_its_own_best() -> None:
    rows = [trial(0, 0.1, 5.0), trial(1, 0.2, 4.0), trial(2, 0.3, 6.0)]
    assert points(figures.history(evidence(rows, objective=TWO), goal=1), "best so far") == [
        (0, 5),
        (1, 4),
        (2, 4),
        (2, 4),
    ]


def test_slices_span_the_whole_space_and_mark_what_was_not_trained_to_its_end() -> None:
    drawn = figures.slices(evidence(MIXED))
    axes = {axis.title.text: axis for axis in drawn.select_xaxes() if axis.title.text}
    assert {name: (axis.type, axis.range) for name, axis in axes.items()} == {
        "learning_rate": ("log", pytest.approx((-5.12, -0.88))),
        "task.x": ("linear", pytest.approx((-0.03, 1.03))),
        "optim": ("category", (-0.5, 1.5)),
        "adam_beta2": ("linear", pytest.approx((0.9 - 0.03 * 0.099, 0.999 + 0.03 * 0.099))),
        "per_device_train_batch_size": ("category", (-0.5, 2.5)),
    }
    assert axes["optim"].ticktext == ("adamw_torch", "adafactor")
    assert axes["per_device_train_batch_size"].categoryarray == ("4", "8", "16")
    rate = [trace for trace in drawn.data if trace.xaxis == "x"]
    xs = {trace.name: trace.x for trace in rate if trace.name in ("pruned", "failed", "diverged")}
    assert xs == {
        name: (MIXED[n].drawn["learning_rate"],) for name, n in (("pruned", 1), ("failed", 2), ("diverged", 4))
    }
    (best,) = [trace for trace in rate if trace.marker.color == style.ACCENT]
    assert (best.x, best.y) == ((MIXED[3].drawn["learning_rate"],), (0.7,))
    assert sorted(t.name for t in drawn.data if t.showlegend) == ["diverged", "failed", "pruned"]


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_parallel_axes_span_the_whole_space_and_each_line_has_its_trials_look(direction: str) -> None:
    drawn = figures.parallel(evidence(MIXED, objective={"metric": "eval_score", "direction": direction}))
    titles = ["eval_score", "learning_rate", "task.x", "optim", "adam_beta2", "…ce_train_batch_size"]
    assert list(drawn.layout.xaxis.ticktext) == titles
    texts: dict[str, list[tuple[float, str]]] = {}
    for note in drawn.layout.annotations:
        texts.setdefault(titles[note.x], []).append((note.y, note.text))
    assert texts == {
        "eval_score": [(0, "0.4"), (1, "0.7")],
        "learning_rate": [(0, "1e-5"), (pytest.approx(0.5), "1e-3"), (1, "0.1")],
        "task.x": [(0, "0"), (0.5, "0.5"), (1, "1")],
        "optim": [(0, "adamw_torch"), (1, "adafactor")],
        "adam_beta2": [(0, "0.9"), (pytest.approx(0.5), "0.95"), (1, "0.999")],
        "…ce_train_batch_size": [(0, "4"), (0.5, "8"), (1, "16")],
    }
    lines = {trace.text[0].partition("</b>")[0].removeprefix("<b>trial "): trace for trace in drawn.data[:-1]}
    best = "3" if direction == "maximize" else "0"
    assert {number for number, line in lines.items() if line.line.color == style.ACCENT} == {best}
    assert {number for number, line in lines.items() if line.line.dash == "dot"} == {"1", "2", "4"}
    assert sorted(lines) == ["0", "1", "2", "3", "4", "5"]
    rate = (math.log10(MIXED[3].drawn["learning_rate"]) + 5) / 4
    assert lines["3"].y == (1.0, pytest.approx(rate), pytest.approx(0.25), 1, None, 0.5), "it has no beta"
    assert lines["2"].y[:3] == (None, pytest.approx((math.log10(MIXED[2].drawn["learning_rate"]) + 5) / 4), 0.2)


def test_darker_is_better_in_the_parallel_coordinates() -> None:
    rows = [trial(number, 0.1 * number) for number in range(12)]
    drawn = figures.parallel(evidence(rows))
    plain = sorted((t for t in drawn.data[:-1] if t.line.color != style.ACCENT), key=lambda line: line.y[0])
    tones = [sum(map(int, line.line.color[4:-1].split(","))) for line in plain]
    assert (len(tones), tones) == (11, sorted(tones, reverse=True))


def test_curves_run_over_epochs_and_a_cross_ends_those_that_were_cut() -> None:
    courses = {0: (0.2, 0.5), 1: (0.4,), 3: (0.6, 0.7), 4: (0.1, math.nan)}
    known = evidence(MIXED, {number: evaluations(number, *values) for number, values in courses.items()})
    drawn = figures.curves(known, color="task.x")
    curves = {trace.text.partition("</b>")[0]: (trace.x, trace.y) for trace in drawn.data[:4]}
    assert curves == {
        "<b>trial 0": ((0.5, 1.0), (0.2, 0.5)),
        "<b>trial 1": ((0.5,), (0.4,)),
        "<b>trial 3": ((0.5, 1.0), (0.6, 0.7)),
        "<b>trial 4": ((0.5,), (0.1,)),
    }
    assert (points(drawn, "pruned"), points(drawn, "diverged")) == ([(0.5, 0.4)], [(0.5, 0.1)])
    assert [trace.line.width for trace in drawn.data[:4]] == [1.3, 1.3, 3.5, 1.3]
    assert [trace.line.color for trace in drawn.data[:4]] == [style.shade(x) for x in (0.1, 0.15, 0.25, 0.3)]
    bar = drawn.data[-1].marker.colorbar
    assert (bar.title.text, bar.tickvals, bar.ticktext) == ("task.x", (0, 0.5, 1), ("0", "0.5", "1"))
    assert figures.curves(known, of="training").layout.yaxis.title.text == "training loss"
    with pytest.raises(KeyError, match=r"no two trials differ in weight_decay; they differ in .*learning_rate"):
        figures.curves(known, color="weight_decay")


def test_a_study_without_logs_has_the_curves_that_its_pruner_saw() -> None:
    drawn = figures.curves(evidence([trial(0, 0.5, intermediate={1: 0.2, 2: 0.5})]))
    assert (drawn.data[0].x, drawn.data[0].y, drawn.layout.xaxis.title.text) == ((1.0, 2.0), (0.2, 0.5), "evaluation")


def test_importances_are_withheld_under_ten_trials_and_say_how_many_they_rest_on() -> None:
    rows = [trial(number, -abs(number - 7.0)) for number in range(12)]
    few = figures.importances(evidence(rows[:9]))
    assert (few.data, few.layout.annotations[0].text) == (
        (),
        "Importances need 10 complete trials; this study has 9.",
    )
    pruned = [replace(row, ending=Ending.pruned) for row in rows[:3]]
    assert figures.importances(evidence([*pruned, *rows[3:]])).data == (), "pruned ones do not count"
    drawn = figures.importances(evidence(rows))
    assert drawn.layout.xaxis.title.text == "share, over 12 complete trials"
    (bar,) = drawn.data
    assert sum(bar.x) == pytest.approx(1.0)
    assert sorted(bar.y) == ["adam_beta2", "learning_rate", "optim", "per_device_train_batch_size", "task.x"]


def test_importances_of_several_goals_are_those_of_each_goal_alone() -> None:
    rows = [trial(number, number, (7 * number) % 12) for number in range(12)]
    both = figures.importances(evidence(rows, objective=TWO))
    for goal, bar in enumerate(both.data):
        alone = [replace(row, values=row.values[goal : goal + 1]) for row in rows]
        (single,) = figures.importances(evidence(alone, objective=TWO["metrics"][goal])).data  # type: ignore[index]  # a dict of lists
        assert (bar.name, dict(zip(bar.y, bar.x, strict=True))) == (
            single.name,
            dict(zip(single.y, single.x, strict=True)),
        )


def test_the_front_is_marked_and_pruned_trials_are_shown() -> None:
    rows = [
        trial(0, 0.5, 1.0),
        trial(1, 0.6, 2.0),
        trial(2, 0.4, 3.0),
        trial(3, 0.9, 0.5, ending=Ending.pruned),
        trial(4, ending=Ending.failed),
    ]
    drawn = figures.front(evidence(rows, objective=TWO))
    assert points(drawn, "Pareto front") == [(0.5, 1.0), (0.6, 2.0)]
    assert points(drawn, "dominated") == [(0.4, 3.0)]
    assert points(drawn, "pruned") == [(0.9, 0.5)]
    assert [note.text for note in drawn.layout.annotations] == ["without values: 1 failed"]
    assert [axis.title.text for axis in (drawn.layout.xaxis, drawn.layout.yaxis)] == ["eval_score ↑", "eval_cost ↓"]
    best = next(trace for trace in drawn.data if trace.name == "Pareto front")
    assert [text.partition("</b>")[0] for text in best.text] == ["<b>trial 0", "<b>trial 1"]


def test_the_front_of_three_goals_has_a_panel_for_each_pair() -> None:
    three = {**TWO, "metrics": [*TWO["metrics"], {"metric": "eval_loss", "direction": "minimize"}]}
    rows = [trial(0, 0.5, 1.0, 3.0), trial(1, 0.6, 2.0, 2.0), trial(2, 0.4, 3.0, 9.0)]
    drawn = figures.front(evidence(rows, objective=three))
    titles = zip(drawn.select_xaxes(), drawn.select_yaxes(), strict=True)
    assert [(x.title.text, y.title.text) for x, y in titles if x.title.text] == [
        ("eval_score ↑", "eval_cost ↓"),
        ("eval_score ↑", "eval_loss ↓"),
        ("eval_cost ↓", "eval_loss ↓"),
    ]
    assert points(drawn, "Pareto front") == [
        (0.5, 1.0), (0.6, 2.0), (0.5, 3.0), (0.6, 2.0), (1.0, 3.0), (2.0, 2.0),
    ]  # fmt: skip


def test_isolation_has_the_best_at_each_value_of_what_the_study_asks_about() -> None:
    rows = [trial(number, (number % 5) / 10) for number in range(10)]
    drawn = figures.isolation(evidence(rows))
    names = [axis.title.text for axis in drawn.select_xaxes()]
    assert names[:4] == ["learning_rate", "task.x", "optim", "adam_beta2"], "the batch size is a nuisance"
    tops = [trace for trace in drawn.data if trace.marker.size == 8]
    assert (tops[2].x, tops[2].y) == (("'adamw_torch'", "'adafactor'"), (0.4, 0.4))
    rates = tuple(rows[number].drawn["learning_rate"] for number in (4, 9))
    assert (tops[0].x, tops[0].y) == (rates, (0.4, 0.4)), "of three parts of the range, the last is empty"
    assert {trace.xaxis for trace in drawn.data if trace.mode == "lines"} == {"x", "x2", "x4"}, "choices are not joined"


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize("seed", range(5))
def test_what_each_value_can_reach_is_never_drawn_below_a_measured_point(direction: str, seed: int) -> None:
    dice = random.Random(seed)
    space = {
        "learning_rate": {"low": 1e-5, "high": 1e-1, "log": True},
        "task.n": {"low": 1, "high": 7},
        "task.x": {"low": -1.0, "high": 1.0, "step": 0.25},
    }
    rows = []
    for number in range(30):
        drawn = {
            "learning_rate": 10 ** dice.uniform(-5, -1),
            "task.n": dice.randint(1, 7),
            "task.x": dice.randint(-4, 4) / 4,
        }
        ending = Ending.pruned if number % 5 == 4 else Ending.complete
        rows.append(replace(trial(number, dice.random()), params=drawn, drawn=drawn, ending=ending))
    goal = {"metric": "eval_score", "direction": direction}
    drawn = figures.isolation(evidence(rows, space=space, objective=goal))
    sign = 1 if direction == "maximize" else -1
    for axis, name in (("x", "learning_rate"), ("x2", "task.n"), ("x3", "task.x")):
        (line,) = [trace for trace in drawn.data if trace.mode == "lines" and trace.xaxis == axis]
        parts = [(line.x[i], line.x[i + 1], line.y[i]) for i in range(0, len(line.x), 3)]
        assert set(line.x[2::3]) == {None}, "parts are not joined"
        for row in rows:
            x = row.drawn[name]
            reached = [sign * y for low, high, y in parts if low - 1e-9 <= x <= high + 1e-9]
            assert reached and max(reached) >= sign * row.values[0], (name, x)
        assert {y for _, _, y in parts} <= {row.values[0] for row in rows}, "a line is at a measured value"


@pytest.mark.parametrize("figure", [figures.history, figures.slices, figures.isolation])
def test_a_pruned_trial_that_was_better_than_the_best_is_drawn_at_its_value(figure: Any) -> None:
    rows = [*(trial(number, 0.1 * number) for number in range(6)), trial(6, 0.9, ending=Ending.pruned)]
    drawn = figure(evidence(rows))
    assert {y for _, y in points(drawn, "pruned")} == {0.9}
    assert drawn.layout.yaxis.range[1] > 0.9


@pytest.mark.parametrize("figure", [figures.slices, figures.isolation])
def test_incomplete_trials_are_crosses_in_every_panel(figure: Any) -> None:
    drawn = figure(evidence(MIXED))
    for name, number in (("pruned", 1), ("failed", 2), ("diverged", 4)):
        crosses = [trace for trace in drawn.data if trace.name == name and trace.xaxis == "x"]
        assert [(trace.x, trace.marker.symbol) for trace in crosses] == [
            ((MIXED[number].drawn["learning_rate"],), "x-thin")
        ]
    only = [trial(0, 0.5), *(trial(number, 0.1 * number, ending=Ending.pruned) for number in range(1, 6))]
    assert len(points(figure(evidence(only)), "pruned")) >= 5, "also where one trial alone is complete"


def test_incomplete_trials_have_their_ending_in_the_legend_of_the_parallel_coordinates() -> None:
    drawn = figures.parallel(evidence([*MIXED, trial(7, 0.1, ending=Ending.pruned)]))
    assert [trace.name for trace in drawn.data if trace.showlegend] == ["pruned", "failed", "diverged"]


def test_the_timeline_has_a_bar_for_each_stint_and_cuts_out_when_nothing_ran() -> None:
    def stint(start: float, end: float | None, ending: Ending) -> Stint:
        return Stint(
            host="here", device="0", start=1000.0 + start, end=None if end is None else 1000.0 + end, ending=ending
        )

    courses = {
        0: Course(stints=(stint(0, 60, Ending.stopped), stint(6000, 6120, Ending.complete))),
        1: Course(stints=(stint(30, 90, Ending.complete),)),
    }
    drawn = figures.timeline(evidence([trial(0, 0.5), trial(1, 0.4)], courses))
    bars = {trace.name: list(zip(trace.base, trace.x, trace.y, trace.text, strict=True)) for trace in drawn.data}
    assert bars == {
        "complete": [(0.5, 1.0, "GPU 0 · slot 2", "1"), (1.5, 2.0, "GPU 0 · slot 1", "0")],
        "stopped": [(0.0, 1.0, "GPU 0 · slot 1", "0")],
    }
    assert [note.text for note in drawn.layout.annotations] == ["nothing ran for 1 h 38 min"]
    assert drawn.layout.xaxis.title.text == "minutes since the study began, idle times cut out"


def test_the_ledger_has_the_hours_by_ending_and_the_idle_ones() -> None:
    rows = [trial(0, 0.5, seconds=3600.0), trial(1, ending=Ending.failed, seconds=1800.0)]
    drawn = figures.ledger(replace(evidence(rows), slot_hours=2.0, confirmed=[trial(0, 0.5, seconds=900.0)]))
    assert {bar.name: bar.x[0] for bar in drawn.data} == {"won": 1.0, "failed": 0.5, "confirmation": 0.25, "idle": 0.25}


TURN = Turn(evaluation=1, step=4, value=0.5, hyperparameters={"learning_rate": 1e-3}, donor=0)
ODD: dict[str, list[Trial]] = {
    "none yet": [],
    "one": [trial(0, 0.5)],
    "waiting": [trial(0, ending=Ending.waiting)],
    "running": [trial(0, ending=Ending.running), trial(1, ending=Ending.stopped)],
    "all failed": [trial(number, ending=Ending.failed) for number in range(12)],
    "all pruned": [trial(number, 0.1 * number, ending=Ending.pruned) for number in range(12)],
    "equal": [trial(number, 0.5) for number in range(12)],
    "not finite": [trial(number, (math.nan, math.inf)[number % 2], intermediate={1: math.nan}) for number in range(12)],
    "one not finite": [trial(number, math.nan if number == 2 else 0.1 * number) for number in range(12)],
    "numbers missing": [trial(number, 0.1 * number) for number in (1, 4, 9)],
    "far off": [trial(number, -1e9 if number == 2 else 0.1 * number) for number in range(12)],
    "outside the space": [trial(n, 0.1 * n, drawn={"learning_rate": 5.0 + n, "gone": n}) for n in range(12)],
    "nothing drawn": [replace(trial(number, 0.1 * number), drawn={}, params={}) for number in range(12)],
    "a population": [trial(number, 0.1 * number, schedule=(TURN,)) for number in range(12)],
    "mixed": MIXED,
}


@pytest.mark.parametrize("name", [*FIGURES, "losses"])
@pytest.mark.parametrize("case", ODD)
@pytest.mark.parametrize("goals", [1, 2])
def test_every_figure_is_drawn_of_any_trials(name: str, case: str, goals: int) -> None:
    rows = [replace(row, values=row.values * goals) for row in ODD[case]]
    known = evidence(
        rows,
        {row.number: evaluations(row.number, 0.1, 0.2) for row in rows if row.number % 3},
        **({"objective": TWO} if goals == 2 else {}),
    )
    drawn = figures.curves(known, of="training") if name == "losses" else FIGURES[name](known)
    assert drawn.layout.title.text is None
    assert drawn.data or drawn.layout.annotations[0].text
    assert "sendChartToCloud" in drawn.layout.template.layout.modebar.remove
    assert "NaN" not in drawn.to_json() and "Infinity" not in drawn.to_json()
