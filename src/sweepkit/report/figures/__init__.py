"""A study in figures, for the report and for notebooks: each function takes a study and returns a plotly figure.

What is drawn is what storage and the trials' logs say at that moment. Knows no page.
"""

from __future__ import annotations

from collections.abc import Callable

import plotly.graph_objects as go

from sweepkit.report.figures.courses import curves
from sweepkit.report.figures.outcome import front, history, ledger
from sweepkit.report.figures.parameters import importances, isolation, parallel, slices
from sweepkit.report.figures.slots import timeline

__all__ = [
    "FIGURES",
    "curves",
    "front",
    "history",
    "importances",
    "isolation",
    "ledger",
    "parallel",
    "slices",
    "timeline",
]

FIGURES: dict[str, Callable[..., go.Figure]] = {
    "history": history,
    "front": front,
    "curves": curves,
    "importances": importances,
    "isolation": isolation,
    "slices": slices,
    "parallel": parallel,
    "timeline": timeline,
    "ledger": ledger,
}
"""Every figure by its name."""
