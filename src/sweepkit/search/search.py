"""What was tried, what to try next, and how good it was: a study's trials in an Optuna storage.

Three guarantees. A trial is stored whole, in one record, before it starts. A proposal follows from the stored trials, the
study's seed and the trial's number alone, so a study killed at any moment resumes with the same sequence. And asking costs
the same at trial 5,000 as at trial 5, as ended trials are read only once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from optuna.pruners import BasePruner
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from sweepkit.search.courses import Courses
from sweepkit.search.drivers import drivers_of
from sweepkit.search.history import Evaluations, History
from sweepkit.search.private import trial_id
from sweepkit.search.proposals import Proposals
from sweepkit.search.proposer import Proposer
from sweepkit.search.records import (
    EVALUATION,
    FIXED,
    Earlier,
    Records,
    blank,
    decisions_of,
    ending_of,
    is_ours,
    row_of,
    whole,
)
from sweepkit.search.storage import ensure_whole, together
from sweepkit.search.strategies import strategy_of, wants_more
from sweepkit.search.strategy import Next, Ruling, Seen, Strategy, TimeLeft, Word
from sweepkit.study.configurations import Configuration, key_of
from sweepkit.study.errors import InputError
from sweepkit.study.files import first_line
from sweepkit.study.garbage import without_collection
from sweepkit.study.paths import Place
from sweepkit.study.samplers import make_pruner
from sweepkit.study.space import dimensions
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Evaluated, Finished
from sweepkit.trial.trial import FROM, Decision, Ending, Reason, Trial


class Search:
    """The trials of one study, in an Optuna study named like it plus ``suffix``.

    With a suffix nothing is proposed and no budget applies: only what was added is run (confirmation runs). ``pruner``
    replaces the study's own. Raises InputError for sampler or pruner options that Optuna refuses.
    """

    def __init__(
        self,
        study: StudyData,
        storage: BaseStorage,
        proposer: Proposer,
        *,
        suffix: str = "",
        pruner: BasePruner | None = None,
    ) -> None:
        name = study.name + suffix
        self._study, self._objective, self._proposer = study, study.objective, proposer
        self.place: Place = replace(study.place, name=name)
        """Where its trials lie; those of a search with a suffix lie beside the study's own."""
        self.proposes = not suffix
        """Whether it proposes new configurations; False for confirmation runs."""
        self.exhausted = False
        """Whether an ask found that every configuration was tried."""
        self.late = False
        """Whether the last ask found room for a new trial, but not the time."""
        self.enough = ""
        """Why the last ask found that nothing is worth its training; empty where something is."""
        self.records = Records(name, storage, study.objective.goals)
        self._history = History(self.records)
        self._drivers, self._evaluations = drivers_of(study, name), dict[int, Evaluations]()
        self.courses = Courses(study, self._history, proposer.known)
        self._proposals = Proposals(study, self.records, self._history, proposer, self._drivers.me)
        self._pruner, self._mine, self._announced = pruner, set[int](), set[int]()
        self._strategy = self._decide_by()
        self._added = not self.proposes  # whether the study file's own configurations were added
        ensure_whole(study, self.place, self.place.next_number(), len(self.records.all()))
        make_pruner(study.pruner.kind, study.pruner.options)

    def start_from(self, look: Callable[[], Earlier]) -> Earlier | None:
        """Return what the study takes from earlier ones: as stored, else as ``look`` finds it, unless it has trials already."""
        with self._drivers.turn():
            taken = self.records.earlier()
            if taken is None and not self.records.all():
                taken = look()
                self.records.note_earlier(taken)
        self._strategy = self._decide_by()
        return taken

    def _decide_by(self) -> Strategy:
        return strategy_of(self._study, self._history, self._proposals.pruner_view, self._proposer, self._pruner)

    def trials(self) -> list[Trial]:
        """Return all trials by number."""
        return self._history.trials()

    def row(self, number: int) -> Trial:
        """Return one trial. Raises StudyNotFound."""
        return row_of(self.records.get(number))

    def take_over(self) -> list[Trial]:
        """Take over the trials that dead drivers left running, and return them, oldest first."""
        left = []
        with self._drivers.turn():
            for trial in self._history.read():
                if trial.state != TrialState.RUNNING or trial.number in self._mine | self._history.foreign.keys():
                    continue
                if ending_of(trial) is Ending.paused or self._drivers.alive(trial.user_attrs.get("driver")):
                    continue
                if ending_of(trial).counts:  # its driver died between recording the ending and closing the trial
                    self._close(trial, ending_of(trial), trial.user_attrs["values"])
                    continue
                left.append(self._take(trial))
        return left

    def ask(self, *, time: TimeLeft | None = None) -> Trial | None:
        """Return the next trial, stored as running: a new one, or a paused one that goes on, which has evaluations.

        None when ``budget.trials`` is spent or the space is exhausted, or in ``time`` none can be trained to its end, and no
        paused trial is to go on now.
        """
        with self._drivers.turn(), without_collection():  # the first look at a long study makes objects that all stay
            self._history.read()
            self._add_from_file()
            self._adopt_enqueued(self._history.read())
            while (chosen := self._strategy.ask(self._seen(time=time))) is not None:
                self.enough = chosen.why if chosen.ends and not self._history.waiting else ""
                if self.enough:
                    return None
                if chosen.number is not None:
                    paused = self.records.get(chosen.number)
                    last = max(paused.intermediate_values, default=0)
                    return self._take(paused, Decision(last, "continue", chosen.why))
                if not self._room:
                    return None
                trial = self._new(chosen)
                if trial is not None:
                    return self._take(trial)
            self.late = time is not None and self._room
        return None

    def close_paused(self, number: int, why: str) -> Trial | None:
        """Take a paused trial on to prune it, which the caller does; None where another driver was faster."""
        with self._drivers.turn():
            trial = self.records.get(number)
            if ending_of(trial) is not Ending.paused:
                return None
            return self._take(trial, Decision(max(trial.intermediate_values, default=0), "prune", why))

    def paused_trials(self, *, also: int | None = None) -> list[int]:
        """Return the paused trials, ``also`` another one, as if it were: the most promising first."""
        seen = self._seen()
        return [course.number for course in (seen if also is None else seen.with_paused(also)).paused]

    @property
    def elsewhere(self) -> bool:
        """Whether another driver's trial runs, after which paused ones may go on."""
        with self._drivers.turn():
            trials = self._history.read()
            others = (trials[number] for number in self._history.running - self._mine)
            going = (trial for trial in others if ending_of(trial) is not Ending.paused)
            return any(self._drivers.alive(trial.user_attrs.get("driver")) for trial in going)

    def news(self) -> list[str]:
        """Return a sentence on each trial, found since the last call, that plain Optuna added and that is left out."""
        new = {number: why for number, why in self._history.foreign.items() if number not in self._announced}
        self._announced |= new.keys()
        return [f"trial {number} is left out: {why}" for number, why in new.items()]

    def report(self, event: Evaluated, *, seconds: float | None = None, time: TimeLeft | None = None) -> Word:
        """Store an evaluation; return whether the trial goes on. The same evaluation may be reported again.

        ``seconds`` is what it took since the one before, if that was measured, ``time`` what the budget leaves. The baseline
        always goes on, as its value is what others are compared with, and so does a trial at its final evaluation. The
        strategy is asked about them all the same, as it compares other trials with them.
        """
        trial = self.records.get(event.trial)
        self._evaluated(trial).add(event)
        key, value = f"{EVALUATION}{event.number}", event.values[self._objective.deciding]
        stored = {"values": list(event.values), "metrics": dict(event.metrics)}
        if (seconds := trial.user_attrs.get(key, {}).get("seconds", seconds)) is not None:
            stored["seconds"] = seconds
        with together(self.records.storage):
            self.records.note(trial, **{key: stored})
            self.records.storage.set_trial_intermediate_value(trial_id(trial), event.number, value)
        # A strategy decides once: what it wrote (asha) or other trials, since then, could change its answer.
        if decided := [each for each in decisions_of(trial) if each.evaluation == event.number]:
            return cast(Word, decided[-1].answer)
        ruling = self._rule(event, self._seen(event, time=time))
        with together(self.records.storage):
            if ruling.answer != "continue" or ruling.why:
                self.records.decide(trial, Decision(event.number, ruling.answer, ruling.why))
            self.records.attach(trial, ruling.written)
        return ruling.answer

    def decide(self, event: Evaluated, answer: Word, why: str) -> None:
        """Replace the decision at an evaluation that was just reported."""
        self.records.decide(self.records.get(event.trial), Decision(event.number, answer, why))

    def _rule(self, event: Evaluated, seen: Seen) -> Ruling:
        """Return the strategy's answer where it may decide, without a pause that would end at once."""
        ruling = self._strategy.report(event, seen)
        if event.final or seen.courses[event.trial].spared:
            return replace(ruling, answer="continue", why="")
        if (
            ruling.answer == "prune"
            and self.proposes
            and wants_more(self._study, seen, event.trial, self._history.spent)
        ):
            why = "else too few trials would be trained to their end to confirm"
            return replace(ruling, answer="continue", why=why)
        chosen = self._strategy.ask(seen.with_paused(event.trial)) if ruling.answer == "pause" else None
        if chosen is not None and chosen.number == event.trial:
            return replace(ruling, answer="continue", why=chosen.why)
        return ruling

    def _seen(self, event: Evaluated | None = None, *, time: TimeLeft | None = None) -> Seen:
        """Return the study as stored now, of the event's trial what it was at that evaluation."""
        courses = self.courses.read()
        at = courses[event.trial].until(event.number) if event else None
        if repeated := at is not None and at != courses[at.number]:
            courses = {**courses, at.number: at}
        return Seen(
            courses=courses,
            room=self._room,
            evaluations=self.courses.evaluations,
            key=self._objective.key_of,
            draw=self._proposals.draw,
            kept=None if repeated else self.courses.standing,
            time=time,
        )

    @property
    def _room(self) -> bool:
        """Whether a new trial may start, as far as the trials read last say."""
        budget = self._study.budget.trials if self.proposes else None
        spent = budget is not None and self._history.spent >= budget
        return not spent and (bool(self._history.waiting) or (self.proposes and not self.exhausted))

    def _new(self, chosen: Next) -> FrozenTrial | None:
        """Return a trial that starts: one that waits, else one of the configuration, else one that the sampler proposes."""
        if self._history.waiting:
            return self._start(self.records.get(min(self._history.waiting)), chosen)
        self.records.create()
        own = blank(len(self._history.read()), -1)
        proposed = self._proposals.propose(own, {}, TrialState.RUNNING, chosen)
        self.exhausted = proposed is None
        return None if proposed is None else self.records.add(proposed)

    def _take(self, trial: FrozenTrial, decision: Decision | None = None) -> Trial:
        """Make a trial this driver's own, running; store the decision that it goes on."""
        with together(self.records.storage):
            if decision is not None:
                self.records.decide(trial, decision)
            ending = str(Ending.running) if "ending" in trial.user_attrs else None
            self.records.note(trial, driver=self._drivers.me, ending=ending)
        self._mine.add(trial.number)
        return self.row(trial.number)

    def value_so_far(self, event: Evaluated) -> tuple[float, ...]:
        """Return the trial's values by the objective's rule, up to and including this evaluation."""
        return self._objective.values_of(self._evaluated(self.records.get(event.trial)).values(up_to=event.number))

    def tell(self, event: Finished, *, attempts: int = 1, facts: Mapping[str, Any] | None = None) -> None:
        """Store how a trial ended, with further ``facts``; one that stopped or paused stays running, to go on later."""
        trial, ending, reason, cause = self.records.get(event.trial), Ending(event.ending), event.reason, event.cause
        if ending is Ending.pruned and (decided := decisions_of(trial)):
            cause = cause or decided[-1].why
        evaluations = self._evaluated(trial)
        values = tuple(event.values) or self._objective.values_of(evaluations.values())
        if ending is Ending.complete and not (values and all(map(math.isfinite, values))):
            ending, reason = Ending.diverged, Reason.not_finite
            cause = f"the objective is {list(values) or 'missing'}"
        # The ending comes last: a trial that has one has everything, and another driver can close it.
        with together(self.records.storage):
            self.records.note(
                trial,
                reason=None if reason is None else str(reason),
                cause=cause or None,
                seconds=event.seconds,
                attempts=attempts,
                metrics=evaluations.metrics(self._objective),
                **(facts or {}),
                values=list(values),
                ending=str(ending),
            )
            if ending.counts:
                self._close(trial, ending, values)
            elif ending is Ending.paused:
                self._mine.discard(event.trial)

    def enqueue(self, params: Mapping[str, Any]) -> int:
        """Add a hand-picked configuration, by hyperparameters' names; return its trial's number. Names left out are sampled.

        Works while another process runs the study. Raises InputError for values that the space does not contain.
        """
        self._proposer.configurations.ensure_possible(params)
        return self._add(Configuration({}, {}), origin="enqueued", fixed=dict(params))

    def retry(self, numbers: Iterable[int]) -> list[int]:
        """Add a new trial for each of these failed ones, which then no longer count; return the new numbers.

        Raises InputError for a trial that did not fail or was retried already.
        """
        self._history.read()
        for number in (chosen := list(numbers)):
            if (ending := ending_of(self.records.get(number))) is not Ending.failed:
                raise InputError(f"trial {number} is {ending}; only failed trials can be retried")
            if number in self._history.replaced:
                raise InputError(f"trial {number} was already retried")
        return [self._add(self._configuration(number), retry_of=number) for number in chosen]

    def confirm(self, number: int, searched: Search, *, seed: int) -> int:
        """Add a confirmation run of trial ``number`` of another search, with a seed of its own; return its number."""
        return self._add(searched._configuration(number), confirm_of=number, seed=seed)

    def _configuration(self, number: int) -> Configuration:
        trial = self.records.get(number)
        return Configuration(trial.params, trial.user_attrs["hyperparameters"])

    def _evaluated(self, trial: FrozenTrial) -> Evaluations:
        return self._evaluations.setdefault(trial.number, Evaluations(trial.user_attrs))

    def _close(self, trial: FrozenTrial, ending: Ending, values: Sequence[float]) -> None:
        self._evaluations.pop(trial.number, None)
        if ending is Ending.failed:
            self.records.close(trial, TrialState.FAIL, None)
        elif ending is Ending.pruned:
            self.records.close(trial, TrialState.PRUNED, None)
        elif ending is Ending.complete:
            self.records.close(trial, TrialState.COMPLETE, values)
        else:
            self._history.read()
            self.records.close(trial, TrialState.COMPLETE, self._history.worst(self._objective.goals), fits=False)

    def _add_from_file(self) -> None:
        """Add the baseline and the enqueued configurations of the study file, unless an earlier run did."""
        if self._added:
            return
        if self._study.baseline is not None and not self._history.baselines:
            self._add(self._proposer.configurations.baseline(self._study.baseline), origin="baseline")
        present = list(self._history.listed)
        for entry in self._study.enqueue:
            if key_of(entry) in present:
                present.remove(key_of(entry))
            else:
                self._proposer.configurations.ensure_possible(entry)
                self._add(Configuration({}, {}), origin="enqueued", fixed=entry, listed=key_of(entry))
        taken = self.records.earlier()
        for origin, values in taken.first if taken else ():
            if f"{origin}: {key_of(values)}" not in present:
                entry = {"origin": f"{FROM}{origin}", "fixed": values, "listed": f"{origin}: {key_of(values)}"}
                self._add(Configuration({}, {}), **entry)
        self._added = True

    def _adopt_enqueued(self, trials: Sequence[FrozenTrial]) -> None:
        """Take over what ``study.enqueue_trial`` of plain Optuna added, or refuse it."""
        names = {key: dimension.name for key, dimension in dimensions(self._study.space).items()}
        for trial in [trials[number] for number in sorted(self._history.waiting)]:
            if is_ours(trial):
                continue
            fixed = {names.get(key, key): value for key, value in trial.system_attrs[FIXED].items()}
            try:
                self._proposer.configurations.ensure_possible(fixed)
            except InputError as error:
                self.records.refuse(trial)
                self._history.refuse(trial.number, f"plain Optuna enqueued it with {fixed}: {first_line(error)}")
            else:
                self.records.note(trial, origin="enqueued", fixed=fixed)

    def _add(self, configuration: Configuration, **attributes: Any) -> int:
        """Store a waiting trial; return its number."""
        domains = self._proposer.distributions
        return self.records.add(whole(TrialState.WAITING, configuration, domains, **attributes)).number

    def _start(self, trial: FrozenTrial, chosen: Next) -> FrozenTrial:
        """Set a waiting trial running, after sampling what it leaves open."""
        with together(self.records.storage):
            if "hyperparameters" not in trial.user_attrs:
                fixed = trial.user_attrs.get("fixed", {})
                proposed = self._proposals.propose(blank(trial.number, trial_id(trial)), fixed, TrialState.WAITING)
                if proposed is None:
                    raise InputError(f"trial {trial.number}: no configuration of the space has {fixed}")
                self.records.fill(trial, proposed)
            if chosen.why:
                self.records.decide(trial, Decision(0, "start", chosen.why))
            self.records.start(trial)
        return self.records.get(trial.number)
