"""A kind of task as one file, :class:`Line`, for tests that add its line to KINDS; and rows for it and other kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

import toys
from sweepkit.tasks.task import Task, Template

if TYPE_CHECKING:
    from datasets import DatasetDict

MESSAGES = toys.messages(40)
ROWS: dict[str, list[dict[str, Any]]] = {
    "token-classification": [
        {"words": text.split(), "tags": ["B-X" if w in toys.WORDS["spam"] else "O" for w in text.split()]}
        for text, _ in MESSAGES
    ],
    "multi-label-classification": [
        {"text": text, "label": [label, *(["now"] if "now" in text else [])]} for text, label in MESSAGES
    ],
    "seq2seq": [{"source": text, "target": f"{label} now"} for text, label in MESSAGES],
    "question-answering": [
        {
            "question": "call",
            "context": text,
            "answers": {"text": [text.split()[2]], "answer_start": [text.index(text.split()[2])]},
        }
        for text, _ in MESSAGES
    ],
    "line": [{}],
}
"""Kind → rows of its columns."""


class Line(Task):
    """Fits a line."""

    template: ClassVar[Template | None] = Template(metric="mse", data="anything", options={"width": 3})
    pipeline_tag: ClassVar[str | None] = "tabular-regression"

    metrics: list[str | dict[str, dict[str, Any]]] = ["mse"]
    """Metrics by name."""
    model: str = ""
    """Not used."""
    source: dict[str, str] = Field(default={}, alias="data")
    """Not used."""
    width: int = 2
    """Numbers per row."""

    def data(self) -> DatasetDict:
        """Return a line of points."""
        from datasets import Dataset, DatasetDict

        points = Dataset.from_dict(
            {"x": [[n / 10] * self.width for n in range(20)], "labels": [n / 5 for n in range(20)]}
        )
        return DatasetDict({"train": points, "validation": points})

    def model_init(self) -> Any:  # type: ignore[override]  # it has no configuration
        """Return a linear layer."""
        from torch import nn

        class Linear(nn.Module):
            def __init__(self, width: int) -> None:
                super().__init__()
                self.linear = nn.Linear(width, 1)

            def forward(self, x: Any = None, labels: Any = None) -> dict[str, Any]:
                found = self.linear(x)[:, 0]
                return {"loss": ((found - labels) ** 2).mean(), "logits": found}

        return Linear(self.width)
