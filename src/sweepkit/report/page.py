"""The report as one HTML page: the answer, what to do next, the figures, the trials.

The page is self-contained, plotly.js included, and opens without a network. All text is scrubbed of secrets and escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from functools import cache
from importlib.metadata import version
from typing import Any

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from sweepkit.check.study_file import to_yaml
from sweepkit.report import figures, panels
from sweepkit.report.evidence import Evidence, configuration
from sweepkit.report.health import findings, unchecked
from sweepkit.report.rows import endings, hours_by_ending
from sweepkit.report.style import ENDINGS
from sweepkit.study import words
from sweepkit.study.parameters import Choice
from sweepkit.study.secrets import of_url, scrub
from sweepkit.study.space import Dimension
from sweepkit.trial.trial import Trial

MOST_TRIALS = 500
"""Trials on the page; the rest are in ``sweep show --all``."""

SHORTEST_SECRET = 8


def html(evidence: Evidence) -> str:
    """Return the whole page."""
    study = evidence.study
    known = of_url(study.storage) | of_url(study.tracking.uri)
    clean = cache(lambda text: scrub(text, known))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sweepkit.report", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: clean(value) if type(value) is str and len(value) >= SHORTEST_SECRET else value,
    )
    environment.filters |= {"value": words.value, "setting": words.setting, "span": words.span}
    return environment.get_template("page.html.j2").render(
        study=study,
        evidence=evidence,
        answer=_answer(evidence),
        facts=list(_facts(evidence)),
        settings=list(_settings(evidence)),
        findings=findings(evidence),
        unchecked=unchecked(evidence),
        comparisons=list(_comparisons(evidence)),
        plates=list(_plates(evidence, clean)),
        trials=_trials(evidence),
        left_out=max(0, len(evidence.rows) - MOST_TRIALS),
        baseline=evidence.baseline,
        yaml=to_yaml(study),
        colors={str(ending): color for ending, color in ENDINGS.items()},
        plotly=Markup(get_plotlyjs()),  # plotly.js itself
        written=f"{datetime.now().astimezone():%-d %B %Y, %H:%M}",
        version=version("sweepkit"),
    )


def _answer(evidence: Evidence) -> dict[str, Any]:
    """Return the headline: a number, its unit, and one sentence."""
    chosen, ended, front = evidence.chosen, evidence.ended, evidence.answer.front
    if evidence.answer.several and front:
        says = f"{words.plural(len(front), 'trial')} of {len(ended)}: none is as good in every goal and better in one."
        return {"number": str(len(front)), "unit": "on the Pareto front", "says": says}
    if chosen is None:
        state = "No trial is complete yet." if evidence.running else "No trial was completed."
        return {"number": "–", "unit": "no answer yet", "says": state if evidence.rows else "No trial has started yet."}
    number, says = words.value(chosen.value), f"Reached by trial {chosen.number} of {len(ended)}."
    if evidence.verdict and (estimate := evidence.verdict.estimate(chosen.number)):
        number = f"{words.value(estimate.mean)} ± {words.value(estimate.std)}"
        says = f"Trial {chosen.number}, mean ± standard deviation over {len(estimate.values)} new seeds."
    return {"number": number, "unit": evidence.goal.metric, "says": f"{says} {_gain(evidence, chosen)}".strip()}


def _gain(evidence: Evidence, chosen: Trial) -> str:
    """Return the gain over the baseline, of the means over new seeds where both have one."""
    baseline, verdict, gain = evidence.baseline, evidence.verdict, evidence.answer.gain(chosen)
    if baseline is None or gain is None:
        return ""
    if baseline.number == chosen.number:
        return f"This is the baseline: nothing beat it{' over new seeds' if verdict else ''}."
    pairs = verdict.comparisons if verdict else ()
    pair = next((p for p in pairs if (p.better, p.worse) == (chosen.number, baseline.number)), None)
    if verdict and pair and (estimate := verdict.estimate(baseline.number)):
        but = "" if pair.distinguishable else ", a difference that may be chance"
        return f"That is {words.value(pair.gain)} better than the baseline's mean ({words.value(estimate.mean)}){but}."
    how, in_search = "better" if gain >= 0 else "worse", " in the search" if verdict else ""
    return f"That is {words.value(abs(gain))} {how} than the baseline ({words.value(baseline.value)}){in_search}."


def _facts(evidence: Evidence) -> Iterator[tuple[str, str]]:
    study, ended = evidence.study, evidence.ended
    of = f" of {study.budget.trials}" if study.budget.trials else ""
    yield "trials", f"{len(ended)}{of}"
    yield "ended", endings(ended) or "–"
    hours = hours_by_ending(evidence.rows, confirmed=evidence.confirmed, slot_hours=evidence.slot_hours)
    yield "hours on slots", words.span(3600 * sum(hours.values())) if sum(hours.values()) else "–"
    pruner = f", {study.pruner.type}" if study.pruner.type != "none" else ""
    yield "search", f"{study.sampler.type}{pruner}"
    peak = max((course.peak_memory_mb for course in evidence.courses.values()), default=0.0)
    if peak:
        yield "peak memory", f"{peak / 1000:.1f} GB"
    if evidence.test:
        yield "on the test split", words.metrics(evidence.test.get("metrics", {})) or "evaluated once"
    yield "state", "running" if evidence.running else "not running"


def _settings(evidence: Evidence) -> Iterator[dict[str, str]]:
    """Yield the chosen configuration beside the baseline's and the space, name by name."""
    chosen, baseline = evidence.chosen, evidence.baseline
    if chosen is None:
        return
    domains = {d.name: _domain(d) for d, _ in configuration(evidence.study, chosen).values()}
    for name, value in chosen.params.items():
        was = baseline.params.get(name) if baseline and baseline.number != chosen.number else None
        yield {
            "name": name,
            "best": words.setting(value, width=60),
            "baseline": "" if was is None else words.setting(was, width=60),
            "space": domains.get(name, "derived"),
        }


def _domain(dimension: Dimension) -> str:
    parameter = dimension.parameter
    if isinstance(parameter, Choice):
        shown = ", ".join(words.setting(label) for label in parameter.labels[:6])
        return shown + (" …" if len(parameter.labels) > 6 else "")
    log = ", log" if parameter.log else ""
    return f"{words.setting(parameter.low)} to {words.setting(parameter.high)}{log}"


def _comparisons(evidence: Evidence) -> Iterator[dict[str, Any]]:
    """Yield for each scientific choice the best value reached with each of its options."""
    for dimension, points in panels.panels(evidence):
        if dimension.parameter.role != "scientific" or not isinstance(dimension.parameter, Choice):
            continue
        tops = panels.reached(evidence, dimension, points)
        counts = {label: sum(1 for _, other in points if other == label) for _, label in tops}
        order = sorted(tops, key=lambda top: -evidence.better(top[0].values[0], 0.0))
        yield {
            "name": dimension.key,
            "lines": [(words.setting(label), row.values[0], row.number, counts[label]) for row, label in order],
        }


def _trials(evidence: Evidence) -> list[Trial]:
    ranked = evidence.answer.ranked
    there = {row.number for row in ranked}
    return [*ranked, *(row for row in evidence.rows if row.number not in there)][:MOST_TRIALS]


CAPTIONS = {
    "front": ("Pareto front", "Pareto-optimal trials: none is as good in every goal and better in one."),
    "history": (
        "Optimization history",
        "{goal} of every trial in the order tried; the line is the best so far. Crosses are incomplete trials; those at "
        "the edge have no value, or one far outside the range.",
    ),
    "importances": (
        "Hyperparameter importances",
        "How much each decides which trials are good (PED-ANOVA). They add up to one, however small the effects.",
    ),
    "isolation": ("Isolation plots", "The best {goal} at each value, over all other hyperparameters."),
    "slices": (
        "Slices",
        "{goal} against each hyperparameter over its whole range; later trials are darker. Crosses are incomplete "
        "trials; the best is marked.",
    ),
    "parallel": (
        "Parallel coordinates",
        "One line per trial; darker is better, dotted lines are incomplete trials, and the best is marked.",
    ),
    "curves": (
        "Learning curves",
        "{goal} at each evaluation. A cross ends incomplete ones; the thick one is the best.",
    ),
    "losses": ("Training loss", "As logged by the Trainer."),
    "timeline": ("Slots", "When and where each trial ran, by its number."),
    "ledger": ("Where the hours went", "Slot hours by how the trials ended."),
}
"""Figure → its title and caption, in the order of the page."""


def _plates(evidence: Evidence, clean: Callable[[str], str]) -> Iterator[dict[str, Any]]:
    """Yield each figure with its title and caption."""
    hidden = {
        "front": not evidence.answer.several,
        "losses": not any(course.losses for course in evidence.courses.values()),
    }
    nuisance = any(getattr(parameter, "role", "") == "nuisance" for parameter in evidence.study.space.values())
    for name, (title, caption) in CAPTIONS.items():
        if hidden.get(name):
            continue
        text = caption.format(goal=evidence.goal.metric)
        if name == "isolation" and nuisance:
            text += " Nuisance hyperparameters are optimized over and not shown."
        drawn = figures.curves(evidence, of="training") if name == "losses" else figures.FIGURES[name](evidence)
        plot = drawn.to_html(
            full_html=False,
            include_plotlyjs=False,
            div_id=f"plot-{name}",
            config={"displaylogo": False, "responsive": True},
            default_width="100%",
            default_height=f"{drawn.layout.height}px",
        )
        html = Markup(clean(plot))  # plotly escapes < and > in its data
        yield {"name": name, "title": title, "caption": text, "html": html}
