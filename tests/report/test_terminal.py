"""Holds what a person sees while a study runs and when it ends: plain lines, the live picture, the summary."""

from __future__ import annotations

import io
import re
import time
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from sweepkit.report import progress, terminal
from sweepkit.report.answer import Answer
from sweepkit.report.verdict import Candidate, judge, write_verdict
from sweepkit.report.watch import Board, Moment, Outcome, confirming, fraction
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Evaluated, Finished, Logged, Started
from sweepkit.trial.trial import Decision, Ending, Trial, TrialSpec

GOALS = [{"metric": "eval_f1", "direction": "maximize"}, {"metric": "eval_loss", "direction": "minimize"}]


def study_of(home: Path, **changes: Any) -> StudyData:
    """Return a study of six trials over two parameters."""
    data: dict[str, Any] = {
        "name": "toy",
        "task": {"path": "task.py:Toy"},
        "training": {"num_train_epochs": 4},
        "objective": {"metric": "eval_f1", "direction": "maximize"},
        "space": {"learning_rate": {"low": 1e-6, "high": 1e-1, "log": True}},
        "pruner": {"type": "asha"},
        "budget": {"trials": 6},
    }
    return StudyData.model_validate({**data, **changes}).at(home)


def trial(number: int, value: float | None, ending: Ending = Ending.complete, **facts: Any) -> Trial:
    """Return a trial of 20 s with a learning rate of its own."""
    params = {"learning_rate": (number + 1) * 1e-5, "per_device_train_batch_size": 16}
    values = () if value is None else (value,)
    return Trial(number=number, ending=ending, values=values, params=params, seconds=20.0, **facts)


def evaluated(number: int, evaluation: int, value: float) -> Evaluated:
    """Return an evaluation at the end of an epoch of 25 steps."""
    return Evaluated(
        trial=number, at=0, number=evaluation, step=25 * evaluation, epoch=evaluation, metrics={}, values=(value,)
    )


def outcome(rows: list[Trial], status: Any = "done", reason: str = "all trials of the budget are done") -> Outcome:
    """Return the outcome of a run of two minutes."""
    return Outcome(status=status, rows=rows, best=None, baseline=None, reason=reason, seconds=120.0)


def text_of(content: Any, width: int = 100) -> str:
    """Return what a terminal of this width shows, without the blanks at the ends of lines."""
    console = Console(width=width, record=True, file=io.StringIO(), force_terminal=True)
    console.print(content)
    lines = console.export_text().splitlines()
    return "\n".join(line.rstrip() for line in lines).strip()


def started(study: StudyData, number: int, **params: Any) -> Started:
    """Return the start of a trial whose spec is on disk."""
    folder = study.place.trial(number)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spec.json").write_text(TrialSpec(number=number, hyperparameters=params, directory=str(folder)).to_json())
    return Started(trial=number, at=0)


def test_a_pipe_gets_one_line_per_start_evaluation_and_end(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = study_of(project)
    with progress.Lines() as lines:
        lines.on_note("warm process ready in 6.1 s")
        lines.on_open(study, [trial(0, 0.5, origin="baseline")])
        lines.on_event(started(study, 1, learning_rate=2e-5))
        lines.on_event(Logged(trial=1, at=0, step=10, epoch=0.4, metrics={"loss": 1.0}))
        lines.on_event(evaluated(1, 1, 0.75))
        lines.on_event(Finished(trial=1, at=0, ending="complete"))
        lines.on_trial_end(trial(1, 0.75))
        lines.on_trial_end(trial(2, None, Ending.failed, cause="ValueError: no\nsecond line"))
    # The time of day and the time left depend on the clock.
    lines_printed = [
        re.sub(r"^\d\d:\d\d:\d\d  | · about .* left$", "", line) for line in capsys.readouterr().out.splitlines()
    ]
    assert lines_printed == [
        "warm process ready in 6.1 s",
        "toy: 6 trials, eval_f1 ↑, in runs/toy",
        "1 trial done before (1 complete)",
        "trial 1 started: lr=2e-5",
        "trial 1 evaluation 1: eval_f1 0.7500 (step 25, epoch 1)",
        "trial 1 complete in 20 s: eval_f1 0.7500 · best 0.7500 (trial 1) · 2/6 (2 complete)",
        "trial 2 failed in 20 s: ValueError: no · best 0.7500 (trial 1) · 3/6 (2 complete, 1 failed)",
    ]


def test_a_resumed_attempt_says_where_it_goes_on(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = study_of(project)
    with progress.Lines() as lines:
        lines.on_open(study, [])
        started(study, 0, learning_rate=2e-5)
        lines.on_event(Started(trial=0, at=0, attempt=2, resumed=50))
    assert capsys.readouterr().out.rstrip().endswith("trial 0 started, attempt 2, resumed from step 50: lr=2e-5")


def test_the_picture_shows_bar_running_trials_and_the_best(project: Path) -> None:
    study = study_of(project)
    board = Board(study)
    board.update([trial(0, 0.5, origin="baseline"), trial(1, 0.75), trial(2, 0.6, Ending.pruned)])
    board.add(started(study, 3, learning_rate=2e-5))
    board.add(evaluated(3, 1, 0.7))
    board.add(evaluated(3, 2, 0.65))
    board.add(started(study, 4, learning_rate=3e-5))
    shown = text_of(progress.picture(board))
    # The time spent and left depends on the clock.
    assert re.sub(r"3/6 .*", "3/6", shown).splitlines() == [
        "toy  eval_f1 ↑ · tpe + asha",
        "━━━━━━━━━━━━━━━━━━╸━━━━━━━━━━━━━ 3/6",
        "2 complete, 1 pruned, 2 running",
        "",
        "3  lr=2e-5  ━━━━━━╺━━━━━  step 50 epoch 2  last 0.6500  best 0.7000",
        "4  lr=3e-5  ━━━━━━━━━━━━  starting",
        "",
        "trial  eval_f1      gain  time  lr    bs",
        "────────────────────────────────────────",
        "    1   0.7500   +0.2500  20 s  2e-5  16",
        "    0   0.5000  baseline  20 s  1e-5  16",
    ]


def test_the_picture_fits_a_narrow_terminal(project: Path) -> None:
    study = study_of(project)
    board = Board(study)
    board.update([trial(0, 0.5, origin="baseline")])
    board.add(started(study, 1, learning_rate=2e-5, **{f"model.parameter_{n}": 0.5 for n in range(6)}))
    assert max(map(len, text_of(progress.picture(board), width=60).splitlines())) <= 60


def test_where_there_is_no_room_the_parameters_of_running_trials_give_way_and_nothing_else(project: Path) -> None:
    study = study_of(project)
    board = Board(study)
    board.add(started(study, 12, learning_rate=2e-5, weight_decay=0.125, **{"model.dropout": 0.25, "seed": 7}))
    for number, value in enumerate((0.7, 0.65), start=1):
        board.add(evaluated(12, number, value))
    assert text_of(terminal.running(study, board.running), width=80) == (
        "12  lr=2e-5 wd=0.125 …   ━━━━━━╺━━━━━  step 50 epoch 2  last 0.6500  best 0.7000"
    )


def test_a_number_is_shown_whole_or_not_at_all(project: Path) -> None:
    study = study_of(project)
    row = replace(trial(1, 0.75), params={"learning_rate": 3.12e-5, "adam_epsilon": 1.234e-12, "weight_decay": 2.5e-4})
    numbers = {"3.12e-5", "1.23e-12", "2.5e-4"}
    for width in range(50, 90):
        table = terminal.trials(Answer(study, [row]), [row])
        board = Board(study, running={1: Moment(params=row.params, step=50, epoch=2.0, values=(0.5,))})
        for shown in (table, terminal.running(study, board.running)):
            found = set(re.findall(r"\S*\de-?\S*|\S*\d\.\d+…", text_of(shown, width)))
            assert {word.rpartition("=")[2] for word in found} <= numbers, width


def test_the_confirmation_has_a_bar_of_its_own(project: Path) -> None:
    study = study_of(project, confirm={"top": 1, "seeds": 3})
    board = Board(study)
    board.update([trial(0, 0.5, origin="baseline"), *(trial(n, 0.6, Ending.pruned) for n in range(1, 6))])
    runs = confirming(study, replace(study.place, name="toy/confirm"), 6, [trial(0, 0.5), trial(1, 0.6)])
    runs.add(started(runs.study, 2, learning_rate=2e-5))
    runs.add(evaluated(2, 2, 0.65))
    board.began, runs.began = time.time() - 150, time.time() - 30
    board.confirmation = runs
    shown = text_of(progress.picture(board)).splitlines()
    assert shown[1:4] == [
        "━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ 6/6           2 min 00 s",
        "━━━━━━━━━━━━━╺━━━━━━━━━━━━━━━━━━ 2/6 confirmed 30 s",
        "2 complete, 1 running",
    ]
    assert (runs.done, runs.seconds_left()) == (2.5, None), (
        "no speed is known before the first step since the first look"
    )


def test_the_time_left_is_at_the_speed_since_the_first_look_and_within_the_budgets_hours(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 100.0, 200.0, 0.0, 100.0])
    monkeypatch.setattr("sweepkit.report.watch.time.monotonic", lambda: next(clock))
    board = Board.at_start(study_of(project), [trial(0, 0.5)])
    assert board.seconds_left() is None
    board.end(trial(1, 0.5))
    assert board.seconds_left() == 400.0
    board.end(trial(2, 0.5))
    assert board.seconds_left() == 300.0
    short = Board.at_start(study_of(project, budget={"trials": 6, "hours": 0.05}), [])
    short.seconds_left()
    short.end(trial(0, 0.5))
    assert short.seconds_left() == 80.0


def test_a_snapshot_names_the_pruned_trials_in_one_line(project: Path) -> None:
    rows = [trial(n, 0.1 * n, Ending.pruned, intermediate=dict.fromkeys(range(1, n + 1), 0.1)) for n in (1, 2, 3)]
    assert progress._pruned(study_of(project), rows) == (
        "trials 1, 2 and 3, after 1 to 3 evaluations; the best reached 0.3000 (trial 3)"
    )


def test_the_bar_of_a_study_that_runs_elsewhere_counts_from_its_beginning(project: Path) -> None:
    board = Board(study_of(project), began=time.time() - 150)
    assert "0/6 2 min 30 s" in text_of(progress.picture(board))


def test_a_view_that_begins_during_the_confirmation_counts_its_time_from_its_first_run(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, now = study_of(project), datetime.now().astimezone()
    again = [trial(n, 0.6, confirm_of=3, started=(now - timedelta(seconds=20 - n)).isoformat()) for n in (0, 1)]

    class Rows:
        def rows(self) -> list[Trial]:
            return [trial(n, 0.5) for n in range(6)]

        def beside(self, suffix: str) -> Any:
            runs = [*again, Trial(number=2, ending=Ending.waiting, confirm_of=3)]
            return SimpleNamespace(rows=lambda: runs, place=replace(study.place, name="toy/confirm"))

    drawn: list[Any] = []
    owners = iter([(1, "here"), None])
    since = now.replace(tzinfo=None) - timedelta(seconds=60)
    for name, fake in (
        ("Reader", lambda study: Rows()),
        ("lock_owner", lambda place: next(owners)),
        ("lock_since", lambda place: since),
        ("snapshot", lambda study: "at the end"),
        ("SECONDS_BETWEEN_READS", 0.0),
        ("picture", lambda board: drawn.append([stage.count() + " " + stage.clock() for stage in board.stages]) or ""),
    ):
        monkeypatch.setattr(progress, name, fake)
    progress.follow(study)
    assert drawn == [["6/6 40 s", "2/3 confirmed 20 s"]]


def test_with_several_goals_a_running_trial_shows_all_its_values_and_no_best(project: Path) -> None:
    study = study_of(project, objective={"metrics": GOALS}, pruner={"type": "none"})
    board = Board(study)
    board.add(started(study, 1, learning_rate=2e-5))
    for number, values in enumerate(((0.7, 0.4), (0.65, 0.3)), start=1):
        board.add(replace(evaluated(1, number, 0.0), values=values))
    assert (
        text_of(terminal.running(study, board.running))
        == "1  lr=2e-5  ━━━━━━╺━━━━━  step 50 epoch 2  last 0.6500, 0.3000"
    )


def test_a_half_trained_trial_counts_half_on_the_bar(project: Path) -> None:
    study = study_of(project)
    board = Board(study)
    board.update([trial(0, 0.5)])
    board.add(started(study, 1, learning_rate=2e-5))
    board.add(evaluated(1, 2, 0.7))
    assert board.done == 1.5


def test_a_new_attempt_from_the_start_forgets_how_far_the_last_was(project: Path) -> None:
    study = study_of(project)
    board = Board(study)
    board.add(started(study, 1, learning_rate=2e-5))
    board.add(evaluated(1, 2, 0.7))
    board.add(Started(trial=1, at=9, attempt=2, resumed=0))
    assert board.running[1] == Moment(params={"learning_rate": 2e-5}, since=9)


def test_a_resumed_attempt_keeps_what_the_last_one_reached(project: Path) -> None:
    study = study_of(project)
    board = Board(study)
    board.add(started(study, 1, learning_rate=2e-5))
    board.add(evaluated(1, 2, 0.7))
    board.add(Started(trial=1, at=9, attempt=2, resumed=50))
    assert (board.running[1].step, board.running[1].history, board.done) == (50, (0.7,), 0.5)


def test_a_paused_trial_waits_beside_the_running_ones_and_goes_on_from_where_it_was(project: Path) -> None:
    study = study_of(project)
    board = Board(study)
    board.add(started(study, 1, learning_rate=2e-5))
    board.add(evaluated(1, 2, 0.7))
    paused = trial(1, 0.7, Ending.paused, intermediate={1: 0.6, 2: 0.7})
    board.end(paused)
    assert (list(board.running), list(board.paused), board.done) == ([], [1], 0.5)
    assert "paused at 2" in text_of(terminal.trials(board.answer, [paused], endings=True))
    why = {1: "4 of 9 after evaluation 2, of which 3 may continue"}
    assert text_of(terminal.running(study, board.paused, why), 120).endswith(why[1])
    board.add(Started(trial=1, at=9, attempt=2, resumed=50))
    assert (board.running[1].history, board.paused) == ((0.7,), {})


def test_a_snapshot_says_how_far_paused_trials_came_and_why_up_to_twenty(project: Path) -> None:
    study = study_of(project)
    rows = [
        trial(number, 0.7, Ending.paused, intermediate={1: 0.7}, decisions=(Decision(1, "pause", f"reason {number}"),))
        for number in range(22)
    ]
    said = text_of(progress._going(study, rows))
    assert said.count("reason") == progress.GOING_SHOWN and said.endswith("and 2 more, listed by --all")


def test_max_steps_decides_how_far_a_trial_is(project: Path) -> None:
    study = study_of(project, training={"max_steps": 200})
    assert fraction(study, Moment(params={}, step=50, epoch=3.0)) == 0.25


def test_failures_stay_above_the_live_picture(project: Path) -> None:
    study = study_of(project)
    console = Console(width=100, record=True, force_terminal=True, file=io.StringIO())
    with progress.Picture(console) as picture:
        picture.on_open(study, [])
        picture.on_trial_end(trial(0, None, Ending.failed, cause="exit code 3"))
        picture.on_close(outcome([]))
        assert "trial 0 failed in 20 s: exit code 3" in console.export_text()


def test_the_summary_ends_with_the_best_its_checkpoint_and_what_to_type_next(project: Path) -> None:
    study = study_of(project)
    rows = [
        trial(0, 0.5, origin="baseline"),
        trial(1, 0.75, checkpoint=study.place.trial(1) / "best"),
        trial(2, None, Ending.failed, cause="no 3 rows"),
        trial(3, None, Ending.failed, cause="no 4 rows"),
    ]
    assert text_of(terminal.summary(outcome(rows), study)).splitlines() == [
        "toy  done  4 trials (2 complete, 2 failed) in 2 min 00 s",
        "all trials of the budget are done",
        "",
        "best  trial 1  eval_f1 0.7500  0.2500 better than the baseline (trial 0: 0.5000)",
        "      learning_rate                2e-5",
        "      per_device_train_batch_size  16",
        "      checkpoint  runs/toy/trials/0001/best",
        "",
        "went wrong",
        "  trials 2, 3  failed  no 3 rows",
        "",
        "next",
        "  sweep show toy            every trial, and where the hours went",
        "  sweep retry toy --failed  run the failed trials again, once their cause is fixed",
        "  sweep report toy          figures, findings and what to do next, as one page",
        "  sweep best toy            the checkpoint's path, for $(…)",
        "  sweep ui toy              curves and parameters in MLflow",
    ]


def confirmed(study: StudyData) -> list[Trial]:
    """Return trials of which a confirmation prefers the second best, its verdict written beside them."""
    rows = [
        trial(0, 0.5, origin="baseline"),
        trial(1, 0.75, checkpoint=study.place.trial(1) / "best"),
        trial(2, 0.74, checkpoint=study.place.trial(2) / "best"),
    ]
    means = {0: 0.5, 1: 0.6, 2: 0.7}
    able = [
        Candidate(number=n, values=(mean - 0.01, mean, mean + 0.01), baseline=not n, searched=rows[n].value)
        for n, mean in means.items()
    ]
    write_verdict(study.place, judge(able, metric="eval_f1", direction="maximize", best=1))
    return rows


def test_after_a_confirmation_the_summary_ends_with_the_trial_it_chose(project: Path) -> None:
    study = study_of(project)
    rows = confirmed(study)
    shown = text_of(terminal.summary(outcome(rows), study), width=160)
    assert shown.splitlines()[3:5] == [
        "best  trial 2  eval_f1 0.7000 ± 0.0100 over 3 new seeds  0.2000 better than the baseline (trial 0: 0.5000)",
        "      0.7400 in the search",
    ]
    assert "      Take trial 2: over new seeds it is better than the baseline by 0.2000 (95 % interval " in shown
    assert "checkpoint  runs/toy/trials/0002/best" in shown


def test_a_summary_without_a_best_trial_offers_nothing_that_needs_one(project: Path) -> None:
    study = study_of(project)
    shown = text_of(terminal.summary(outcome([trial(0, None, Ending.diverged)], "failed", "no trial completed"), study))
    assert "sweep show toy" in shown and "sweep best" not in shown and "sweep retry" not in shown


def test_what_went_wrong_says_where_to_read_on(project: Path) -> None:
    study = study_of(project)
    log = study.place.trial(1) / "console.log"
    log.parent.mkdir(parents=True)
    log.touch()
    shown = text_of(terminal.summary(outcome([trial(1, None, Ending.failed, cause="exit code 3")]), study))
    assert "see runs/toy/trials/0001/console.log" in shown


def test_where_a_table_is_too_wide_its_parameters_give_way(project: Path) -> None:
    console = Console(width=40, record=True, file=io.StringIO())
    console.print(terminal.trials(Answer(study_of(project), ()), [trial(1234, 0.5)], endings=True))
    assert re.search(r"1234 +complete +0\.5000 +20 s .*…", console.export_text())


def test_after_a_confirmation_the_overview_has_the_trial_it_chose(project: Path) -> None:
    study = study_of(project)
    line = text_of(terminal.overview([Answer.read(study, confirmed(study))])).splitlines()[2]
    assert line.split()[:5] == ["toy", "3/6", "eval_f1", "↑", "0.7000"]


def test_an_interrupted_summary_says_how_to_go_on(project: Path) -> None:
    study = study_of(project)
    shown = text_of(terminal.summary(outcome([], "interrupted", "interrupted"), study))
    assert "the same command resumes the study" in shown


def test_a_summary_without_a_complete_trial_says_so(project: Path) -> None:
    study = study_of(project)
    rows = [trial(0, None, Ending.failed, cause="signal 9")]
    shown = text_of(terminal.summary(outcome(rows, "failed", "no trial completed"), study))
    assert "No trial completed, so there is no best one." in shown
    assert "trial 0  failed  signal 9" in shown


def test_several_goals_end_with_the_pareto_front(project: Path) -> None:
    study = study_of(project, objective={"metrics": GOALS, "prune_on": "eval_f1"})
    points = [(0.9, 0.5), (0.8, 0.4), (0.7, 0.6)]
    rows = [Trial(number=number, ending=Ending.complete, values=point) for number, point in enumerate(points)]
    shown = text_of(terminal.summary(outcome(rows), study))
    assert "Pareto front: 2 trials" in shown
    assert [line.split() for line in shown.splitlines() if "0.4000" in line] == [["1", "0.8000", "0.4000", "–"]]


def test_a_table_with_too_much_for_a_line_cuts_parameters_and_never_a_trials_number(project: Path) -> None:
    study = study_of(project, objective={"metrics": GOALS, "prune_on": "eval_f1"})
    params = {f"model.{name}_of_every_layer": 123456.789 for name in ("width", "depth", "heads", "patches")}
    rows = [Trial(number=7, ending=Ending.complete, values=(0.9, 1e4), params=params, seconds=200.0)]
    line = text_of(terminal.trials(Answer(study, rows), rows)).splitlines()[2]
    assert line.split()[:6] == ["7", "0.9000", "1e4", "3", "min", "20"]


def test_outside_the_project_the_commands_name_the_folder_unless_the_name_is_enough(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(project)
    monkeypatch.chdir(project.parent)
    assert terminal.argument(study.place) == "project/runs/toy"
    for folder, typed in ((study.place.folder, "toy"), (project.parent / "other/runs/toy", "project/runs/toy")):
        folder.mkdir(parents=True)
        (folder / "study.json").touch()
        assert terminal.argument(study.place) == typed


def test_a_pipe_gets_no_trailing_blanks(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = study_of(project)
    terminal.show(terminal.summary(outcome([trial(0, 0.5)]), study))
    assert [line for line in capsys.readouterr().out.splitlines() if line != line.rstrip()] == []
