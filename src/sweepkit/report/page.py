"""The report as one HTML page: the answer, what to do next, the figures, the trials.

The page is self-contained, plotly.js included, and opens without a network. All text is scrubbed of secrets and escaped.
"""

from __future__ import annotations

import base64
import gzip
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
from sweepkit.report.evidence import Evidence, configuration, configurations
from sweepkit.report.health import UNCHECKED, findings
from sweepkit.report.rows import endings, hours_by_ending
from sweepkit.report.style import ENDINGS
from sweepkit.report.terminal import short_path
from sweepkit.study import words
from sweepkit.study.parameters import Choice, Scalar
from sweepkit.study.secrets import scrub
from sweepkit.study.space import Dimension
from sweepkit.trackers import tracker_of
from sweepkit.trial.trial import Trial

MOST_TRIALS = 500
"""Trials on the page; the rest are in ``sweep show --all``."""

SHORTEST_SECRET = 5


def html(evidence: Evidence) -> str:
    """Return the whole page."""
    study = evidence.study
    clean = cache(scrub)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sweepkit.report", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: clean(value) if type(value) is str and len(value) >= SHORTEST_SECRET else value,
    )
    environment.filters |= {"value": words.value, "setting": words.setting, "span": words.span}
    found = findings(evidence)
    return environment.get_template("page.html.j2").render(
        study=study,
        evidence=evidence,
        answer=_answer(evidence),
        facts=list(_facts(evidence)),
        settings=list(_settings(evidence)),
        findings=[finding for finding in found if finding.check != UNCHECKED],
        unchecked=[finding for finding in found if finding.check == UNCHECKED],
        comparisons=list(_comparisons(evidence)),
        plates=dict(_plates(evidence, clean)),
        nuisance=any(getattr(parameter, "role", "") == "nuisance" for parameter in study.space.values()),
        trials=_trials(evidence),
        left_out=max(0, len(evidence.rows) - MOST_TRIALS),
        baseline=evidence.baseline,
        yaml=to_yaml(study),
        colors={str(ending): color for ending, color in ENDINGS.items()},
        plotly=Markup(_plotly()),
        page=tracker_of(study).page(),
        loading=_loading(evidence),
        written=f"{datetime.now().astimezone():%-d %B %Y, %H:%M}",
        version=version("sweepkit"),
    )


@cache
def _plotly() -> str:
    """Return plotly.js, compressed, as base64: a third of its size."""
    return base64.b64encode(gzip.compress(get_plotlyjs().encode(), mtime=0)).decode()


def _loading(evidence: Evidence) -> str:
    """Return how the chosen trial's model is loaded; empty without one on this machine."""
    chosen = evidence.chosen
    if chosen is None or chosen.checkpoint is None:
        return ""
    return (
        f"from sweepkit import load_study\n\nmodel = load_study({evidence.study.name!r}).best_model()"
        f"  # trial {chosen.number}, {short_path(chosen.checkpoint, evidence.study.place.root)}"
    )


def _answer(evidence: Evidence) -> dict[str, Any]:
    """Return the headline: a number, its unit, and what is to be said about it."""
    chosen, front = evidence.chosen, evidence.front
    if evidence.several and front:
        return {"number": str(len(front)), "unit": "on the Pareto front", "says": evidence.says()}
    if chosen is None:
        running = evidence.state.status == "running"
        state = "No trial is complete yet." if running else f"No trial was completed ({endings(evidence.rows)})."
        return {"number": "–", "unit": "no answer", "says": state if evidence.rows else "No trial has started."}
    number = words.value(evidence.estimate.mean if evidence.estimate else chosen.value)
    ties = "" if evidence.estimate else evidence.ties()
    return {
        "number": number,
        "unit": evidence.goal.metric,
        "says": " ".join(filter(None, [evidence.says(), ties, evidence.started_from()])),
    }


def _facts(evidence: Evidence) -> Iterator[tuple[str, str]]:
    study, ended = evidence.study, evidence.ended
    of = f" of {study.budget.trials}" if study.budget.trials else ""
    yield "trials", f"{len(ended)}{of}"
    yield "ended", endings(ended) or "–"
    hours = hours_by_ending(evidence.rows, confirmed=evidence.confirmed, slot_hours=evidence.slot_hours)
    yield "time on slots", words.span(3600 * sum(hours.values())) if sum(hours.values()) else "–"
    pruner = f", {study.pruner.title}" if study.pruner.title != "none" else ""
    yield "search", f"{study.sampler.title}{pruner}"
    peak = max((course.peak_memory_mb for course in evidence.courses.values()), default=0.0)
    if peak:
        yield "peak memory", f"{peak / 1000:.1f} GB"
    if evidence.test:
        yield "on the test split", words.metrics(evidence.test.metrics) or "evaluated once"
    yield "state", str(evidence.state)


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
    """Yield for each scientific choice the best value reached with each of its options, and how its trials ended."""
    evidence, known = evidence.of_goal(0), configurations(evidence)
    for dimension, points in panels.panels(evidence):
        key, parameter = dimension.key, dimension.parameter
        if parameter.role != "scientific" or not isinstance(parameter, Choice):
            continue
        best: dict[Scalar, Trial] = {}
        for row, label in points:  # the best come first
            best.setdefault(label, row)
        lines = []
        for label in [*best, *(label for label in parameter.labels if label not in best)]:
            rows = [row for row in evidence.ended if key in known[row.number] and known[row.number][key][1] == label]
            lines.append((words.setting(label), best.get(label), endings(rows) or "not tried"))
        yield {"name": key, "lines": lines}


def _trials(evidence: Evidence) -> list[Trial]:
    ranked = evidence.ranked
    there = {row.number for row in ranked}
    return [*ranked, *(row for row in evidence.rows if row.number not in there)][:MOST_TRIALS]


def _plates(evidence: Evidence, clean: Callable[[str], str]) -> Iterator[tuple[str, Markup]]:
    """Yield the names and the HTML of the page's figures, in its order."""
    goals = ["front"] if evidence.several else []
    losses = ["losses"] if any(course.losses for course in evidence.courses.values()) else []
    names = [
        *goals,
        "history",
        "importances",
        "isolation",
        "slices",
        "parallel",
        "curves",
        *losses,
        "timeline",
        "ledger",
    ]
    for name in names:
        drawn = figures.curves(evidence, of="training") if name == "losses" else figures.FIGURES[name](evidence)
        data = clean(str(drawn.to_json())).replace("<", "\\u003c")
        # The page's script draws it.
        yield (
            name,
            Markup(
                f'<div id="plot-{name}" style="height: {drawn.layout.height}px"></div>'
                f'<script type="application/json">{data}</script>'
            ),
        )
