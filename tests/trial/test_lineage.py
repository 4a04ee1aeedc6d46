"""Where a member's weights come from: the schedule that one run has to follow to get them."""

from __future__ import annotations

from sweepkit.trial.trial import Turn, lineage


def turn(evaluation: int, rate: float, donor: int | None = None) -> Turn:
    values = {"learning_rate": rate}
    return Turn(evaluation=evaluation, step=4 * evaluation, value=0.0, hyperparameters=values, donor=donor)


SCHEDULES = {
    0: (turn(1, 0.1), turn(2, 0.2, donor=1), turn(3, 0.3)),
    1: (turn(1, 1.1, donor=2), turn(2, 1.2), turn(3, 1.3, donor=0)),
    2: (turn(1, 2.1), turn(2, 2.2), turn(3, 2.3)),
}


def test_weights_have_the_past_of_the_members_that_gave_them() -> None:
    root, turns = lineage(SCHEDULES, 0)
    assert (root, [each.hyperparameters["learning_rate"] for each in turns]) == (2, [1.1, 0.2, 0.3])


def test_a_donors_past_ends_where_its_weights_were_taken() -> None:
    root, turns = lineage(SCHEDULES, 1)
    assert (root, [each.hyperparameters["learning_rate"] for each in turns]) == (2, [1.1, 0.2, 1.3])


def test_what_was_measured_at_an_evaluation_came_before_the_meeting_there() -> None:
    assert lineage(SCHEDULES, 0, until=2) == (0, (turn(1, 0.1),))
    assert lineage(SCHEDULES, 2, until=1) == (2, ())


def test_a_trial_without_a_schedule_is_its_own_past() -> None:
    assert lineage({}, 7) == (7, ())
