"""What a training costs beside what it learns, measured in its own process: the goals in ``COSTS``."""

from __future__ import annotations

import json
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch
from transformers import Trainer

from sweepkit.study import linux
from sweepkit.study.files import write_whole

FILE = "costs.json"
"""In a resumable checkpoint: what the training had cost until then."""


class Costs:
    """The costs of one training since ``begin``, and of what it continues from a checkpoint."""

    def __init__(self) -> None:
        self.begin(None)

    def begin(self, checkpoint: str | None) -> None:
        """Start the clock, going on from what the checkpoint says; one of an earlier version says nothing."""
        self._since = time.monotonic()
        self._before: dict[str, float] | None = {}
        if checkpoint is not None:
            file = Path(checkpoint) / FILE
            self._before = json.loads(file.read_bytes()) if file.exists() else None

    def seconds(self) -> float | None:
        """Return the seconds of training until now; None where those before the checkpoint are not known."""
        if self._before is None:
            return None
        return self._before.get("train_runtime", 0.0) + time.monotonic() - self._since

    def now(self, trainer: Trainer) -> dict[str, float | str]:
        """Return every cost until now by its name, or why it is not known; every rank has to call it.

        Memory is that of the rank or device that took the most, weights are those of the whole model.
        """
        assert trainer.model is not None
        trained = [weights for weights in trainer.model.parameters() if weights.requires_grad]
        found: dict[str, float | str] = {
            # DeepSpeed's shards are empty here, and know their size.
            "trainable_parameters": float(sum(getattr(each, "ds_numel", each.numel()) for each in trained))
        }
        if (seconds := self.seconds()) is None or self._before is None:
            return found | dict.fromkeys(("train_runtime", "peak_memory_mb"), "unknown before its checkpoint")
        found["train_runtime"] = seconds
        if trainer.args.device.type not in ("cpu", "cuda"):
            return found | {"peak_memory_mb": f"not measured on {trainer.args.device.type}"}
        peak = max(peak_memory_mb(), self._before.get("peak_memory_mb", 0.0))
        if trainer.args.world_size > 1:
            most = torch.tensor(peak, dtype=torch.float64, device=trainer.args.device)
            torch.distributed.all_reduce(most, op=torch.distributed.ReduceOp.MAX)
            peak = float(most)
        return found | {"peak_memory_mb": peak}

    def write(self, trainer: Trainer, checkpoint: Path | None) -> None:
        """Write the costs until now into a checkpoint; ranks that write none only take part in measuring."""
        known = {name: value for name, value in self.now(trainer).items() if isinstance(value, float)}
        if checkpoint is not None and "train_runtime" in known:
            write_whole(checkpoint / FILE, json.dumps(known), durable=False)


def peak_memory_mb() -> float:
    """Return this process's peak memory in megabytes: the most allocated on a GPU where one is used, else resident."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return max(torch.cuda.max_memory_allocated(device) for device in range(torch.cuda.device_count())) / 1e6
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6 * (1 if sys.platform == "darwin" else 1024)


def forget_peak() -> None:
    """Let the peak begin at what is in use now: trials of one process are measured one by one."""
    linux.set_process(clear_refs="5")
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        for device in range(torch.cuda.device_count()):
            torch.cuda.reset_peak_memory_stats(device)
