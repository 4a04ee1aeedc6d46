"""This toolkit on the same configurations, two trials at a time; ``backend`` is optuna (this machine) or ray."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import psutil
from studies import digits_study

from sweepkit.driver.run import Watcher, run
from sweepkit.trial.trial import Trial


class Ended(Watcher):
    """Notes when the last trial's end was recorded; what follows is taking down, which counts for no tool."""

    def on_trial_end(self, row: Trial) -> None:
        """Note the time."""
        self.at = time.time()


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    count = options["trials"]
    backend = {"type": options["backend"], "parallel": 2, "gpus_per_trial": 0, "cpus_per_trial": 1}
    base = digits_study(Path.cwd())
    study = digits_study(
        Path.cwd(),
        backend=backend,
        enqueue=base.enqueue[:count],
        budget={"trials": count},
        tracking={"uri": options.get("tracking", "none")},
    )
    watch = Ended()
    outcome = run(study, watch=watch)
    ended = time.time()
    assert outcome.status == "done" and len(outcome.rows) == count, outcome
    logs = [study.place.trial(number) / "events.jsonl" for number in range(count)]
    says = [[json.loads(line) for line in log.read_text().splitlines()] for log in logs]
    # The clock starts when the first trial is handed to its slot; a Ray of this study's own has started by then.
    began = min((study.place.trial(number) / "spec.json").stat().st_mtime for number in range(count))
    startup = began - psutil.Process().create_time()
    train = [
        e["metrics"]["train_runtime"] for events in says for e in events if "train_runtime" in e.get("metrics", {})
    ]
    found = {"startup": startup, "wall": watch.at - began, "closing": ended - watch.at, "train": train}
    sys.stdout.write("\n" + json.dumps(found) + "\n")
