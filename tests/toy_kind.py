"""A kind of task as one file: :class:`Line` with everything that belongs to it, for tests that add its line to KINDS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from sweepkit.tasks.task import Task, Template

if TYPE_CHECKING:
    from datasets import DatasetDict


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
