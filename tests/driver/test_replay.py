"""The recorded curves of a study under another strategy: what that would have cost and found, and what nobody knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from making import toy_study
from sweepkit.backends.virtual import Known, Lap, VirtualBackend
from sweepkit.check import check
from sweepkit.driver.clock import Clock
from sweepkit.driver.replay import replay
from sweepkit.driver.session import Setup, StudySession
from sweepkit.report.watch import Watcher
from sweepkit.search.proposer import Proposer
from sweepkit.search.search import Search
from sweepkit.search.storage import open_storage
from sweepkit.study.errors import InputError, StudyFileError, StudyNotFound
from sweepkit.study.identity import identify
from sweepkit.study.study import StudyData
from sweepkit.trackers import tracker_of
from sweepkit.trackers.courier import Courier
from sweepkit.trial.trial import Ending, Reason, TrialSpec

NOTHING = "Only configurations that the study tried have curves: what else it would have tried is unknown."
ASHA = "pruner={type: asha, min_resource: 1, reduction_factor: 2}"


def curves(spec: TrialSpec) -> Known:
    """A minute each evaluation, half a minute to start; the middle rate is best, a slow starter; the highest diverges."""
    rate = spec.hyperparameters["learning_rate"]
    if rate == 9e-3:
        laps = [Lap(60.0, {"eval_score": 0.1}, (0.1,))]
        return Known(laps, 30.0, 5.0, {"ending": Ending.diverged, "reason": Reason.not_finite, "cause": "nan"})
    end = 1.0 - abs(rate - 1e-3) * 100
    values = [end - (0.9 if rate == 1e-3 else 0.2), end - 0.1, end]
    return Known([Lap(60.0, {"eval_score": value}, (value,)) for value in values], 30.0)


def ran(project: Path, rates: list[float], **keys: Any) -> StudyData:
    """Return a study that trained these learning rates, the first one its baseline, one after the other."""
    enqueue = [{"learning_rate": rate} for rate in rates[1:]]
    given = {"baseline": {"learning_rate": rates[0]}, "enqueue": enqueue, "budget": {"trials": len(rates)}, **keys}
    checked = check(toy_study(project, **given))
    study = checked.study
    identify(study.place, study)
    search = Search(study, open_storage(study.place, study), Proposer(study, checked.known))
    courier = Courier(tracker_of(study), warn=print)
    session = StudySession(study, search, courier=courier, watch=Watcher(), setup=Setup(slots=1))
    VirtualBackend(1, curves).drive(session)
    session.end_paused()
    Clock(study.place, slots=1).save()
    return study


RATES = [2e-3, 3e-3, 4e-3, 1e-3, 5e-3, 9e-3]


def test_the_studys_own_strategy_gives_the_record_again(project: Path) -> None:
    found = replay(ran(project, RATES), [])
    assert found.sentences() == [
        "Training: 19 min 05 s in place of 19 min 05 s, 0% less.",
        "The best trial, 3 (1.0000), would have been trained to its end.",
        NOTHING,
    ]
    before, after = (
        sorted((row.params["learning_rate"], row.ending) for row in each.rows) for each in found_rows(found)
    )
    assert before == after


def found_rows(found: Any) -> Any:
    return found.recorded, found.replayed


def test_a_pruner_that_loses_the_winner_says_so_and_what_was_saved(project: Path) -> None:
    study = ran(project, RATES)
    before = {path: path.read_bytes() for path in study.place.folder.rglob("*") if path.is_file()}
    said = replay(study, [ASHA]).sentences()
    assert said[0].startswith("Training: 1") and said[0].endswith(" less.")
    assert said[1].startswith("The best trial, 3 (1.0000), would have been pruned after evaluation 1")
    assert said[2] == "The best complete trial would have been 0, 0.9000."
    assert before == {path: path.read_bytes() for path in study.place.folder.rglob("*") if path.is_file()}


def test_trials_that_pause_may_still_reach_their_end(project: Path) -> None:
    study = ran(project, RATES)
    promoted = replay(study, [ASHA.replace("}", ", promote: true}")]).sentences()
    assert promoted[1].startswith("The best trial, 3 (1.0000), would have been")
    assert replay(study, ["search=auto"]).sentences()[-1] == NOTHING
    assert replay(study, ["search=auto"]).sentences() == replay(study, ["search=auto"]).sentences()
    few = replay(study, ["budget.trials=2"]).sentences()
    assert "The best trial, 3 (1.0000), would not have been started." in few
    assert "Not started: trials 2, 3, 4 and 5." in few


def test_what_lies_beyond_a_pruned_trials_curve_is_not_told(project: Path) -> None:
    pruner = {"type": "asha", "min_resource": 1, "reduction_factor": 2}
    study = ran(project, RATES, pruner=pruner)
    found = replay(study, ["pruner.type=none"])
    assert set(found.cut) == {row.number for row in found.recorded.rows if row.ending is Ending.pruned} != set()
    said = found.sentences()
    assert said[0].startswith("Training: at least ") and 3 in found.cut
    assert any(
        "would have continued past the last recorded evaluation; how they would have ended is unknown." in line
        for line in said
    )


def test_what_curves_cannot_tell_is_refused(project: Path) -> None:
    study = ran(project, RATES[:2])
    for override, message in (
        ("sampler.type=gp", "cannot show its effect"),
        ("pruner.type=pbt", "proposes new configurations"),
    ):
        with pytest.raises(InputError, match=message):
            replay(study, [override])
    with pytest.raises(StudyFileError, match="did you mean median"):
        replay(study, ["pruner.type=media"])
    with pytest.raises(StudyFileError, match="min_resource"):
        replay(study, ["pruner={type: asha, min_resource: 9}"])
    with pytest.raises(StudyNotFound, match="trained to its end"):
        replay(toy_study(project, name="never"), [])
