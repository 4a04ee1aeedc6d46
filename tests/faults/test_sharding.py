"""Trials whose model is sharded over two ranks (gloo): they train, end, resume and are saved as any other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from making import finished, follow, spec, toy_study
from sweepkit.backends.local.executor import Executor
from sweepkit.backends.slots import Slot
from sweepkit.trial.events import Checkpointed, Evaluated, Event, Finished, Started
from sweepkit.trial.trial import Reason, TrialSpec
from sweepkit.trial.worker import SPARE
from toys import tiny_csv

pytestmark = [pytest.mark.real, pytest.mark.slow]

AUTO = {"train_micro_batch_size_per_gpu": "auto", "train_batch_size": "auto", "gradient_accumulation_steps": "auto"}
NEEDED = pytest.mark.skipif(
    not find_spec("deepspeed"), reason="pip install deepspeed (needs wheel, ninja and a compiler)"
)
SHARDED = {
    "fsdp": {"fsdp": True, "fsdp_config": {"transformer_layer_cls_to_wrap": "BertLayer"}},
    "zero-1": {"deepspeed": {"zero_optimization": {"stage": 1}, **AUTO}},
    "zero-2": {"deepspeed": {"zero_optimization": {"stage": 2}, **AUTO}},
}
every_way = pytest.mark.parametrize(
    "way", ["fsdp", pytest.param("zero-1", marks=NEEDED), pytest.param("zero-2", marks=NEEDED)]
)
Answer = Callable[[Evaluated], str]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "pyproject.toml").touch()
    tiny_csv(folder / "train.csv", 64)
    return folder


def study(project: Path, model: Path, **keys: Any) -> Any:
    still = {"model.hidden_dropout_prob": 0.0, "model.attention_probs_dropout_prob": 0.0}
    whole = toy_study(
        project,
        task={"path": None, "type": "text-classification", "model": str(model), "data": {"path": "train.csv"}},
        training={"num_train_epochs": 3, "per_device_train_batch_size": 8, "seed": 5, "max_grad_norm": 0, **still},
        objective={"metric": "eval_loss", "direction": "minimize", "value": "last"},
        **keys,
    )
    del whole.training["use_cpu"]
    return whole


@pytest.fixture(scope="module")
def executor(project: Path, tiny_bert: Path) -> Iterator[Executor]:
    with Executor(study(project, tiny_bert), [Slot(ranks=2)]) as executor:
        executor.wait_ready()
        yield executor


def ended(
    executor: Executor, trial: TrialSpec, answer: Answer = lambda event: "continue"
) -> tuple[Finished, list[Event]]:
    executor.start(trial)
    events = follow(executor, answer)[trial.number]
    assert {child.name() for child in psutil.Process(executor.warm_pid).children(recursive=True)} <= {SPARE}
    return finished(events), events


def weights(folder: Path) -> dict[str, Any]:
    """The weights of a folder that must hold one whole model."""
    from transformers import AutoModelForSequenceClassification

    assert [path.name for path in folder.glob("*.safetensors*")] == ["model.safetensors"]
    model, said = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not said["missing_keys"] and not said["unexpected_keys"] and not said["mismatched_keys"]
    return dict(model.state_dict())


@pytest.fixture(scope="module")
def whole(executor: Executor, project: Path) -> tuple[Finished, dict[str, Any]]:
    """The same trial with a whole model on each rank."""
    end, _ = ended(executor, spec(project, 1, {"learning_rate": 3e-3}))
    assert (end.ending, end.cause) == ("complete", "")
    return end, weights(project / "runs/toy/trials/0001/best")


@every_way
def test_a_sharded_trial_is_the_trial_of_a_whole_model(
    executor: Executor, project: Path, whole: tuple[Finished, dict[str, Any]], way: str
) -> None:
    number = 10 + list(SHARDED).index(way)
    end, events = ended(executor, spec(project, number, {"learning_rate": 3e-3, **SHARDED[way]}))
    assert (end.ending, end.cause, end.step) == ("complete", "", whole[0].step)
    started = next(event for event in events if isinstance(event, Started))
    assert {*SHARDED[way]} | {"learning_rate"} <= {*started.proved}
    assert end.values == pytest.approx(whole[0].values, rel=1e-4)
    kept = weights(project / f"runs/toy/trials/{number:04d}/best")
    assert kept.keys() == whole[1].keys()
    for name, value in kept.items():
        assert (value - whole[1][name]).abs().max() < 1e-3, name


@every_way
def test_a_sharded_trial_stops_and_goes_on_from_its_shards(
    executor: Executor, project: Path, whole: tuple[Finished, dict[str, Any]], way: str
) -> None:
    number, asked = 20 + list(SHARDED).index(way), {"learning_rate": 3e-3, **SHARDED[way]}
    first, events = ended(executor, spec(project, number, asked), lambda event: "stop")
    last = [event for event in events if isinstance(event, Checkpointed) and event.role == "last"][-1]
    assert (first.ending, first.cause, first.step) == ("stopped", "", last.step)
    said = tuple({"number": e.number, "step": e.step, "values": e.values} for e in events if isinstance(e, Evaluated))
    second, events = ended(executor, spec(project, number, asked, resume_from=last.path, evaluations=said))
    assert (second.ending, second.cause, second.step) == ("complete", "", whole[0].step)
    assert [event.number for event in events if isinstance(event, Evaluated)] == [2, 3]
    assert second.values == pytest.approx(whole[0].values, rel=1e-4)


@every_way
def test_a_sharded_trial_is_pruned(executor: Executor, project: Path, way: str) -> None:
    end, events = ended(executor, spec(project, 30 + list(SHARDED).index(way), SHARDED[way]), lambda event: "prune")
    assert (end.ending, end.cause) == ("pruned", "")
    assert [event.number for event in events if isinstance(event, Evaluated)] == [1]


@every_way
def test_a_killed_rank_ends_a_sharded_trial_with_its_cause(executor: Executor, project: Path, way: str) -> None:
    killed = []

    def kill(event: Evaluated) -> str:
        ranks = [p for p in psutil.Process(executor.warm_pid).children() if p.name() == "sweep trial"]
        killed.append(next(p for p in ranks if p.environ().get("RANK", "1") != "0"))
        killed[-1].kill()
        return "continue"

    began = time.monotonic()
    end, _ = ended(executor, spec(project, 40 + list(SHARDED).index(way), SHARDED[way]), kill)
    assert (end.ending, end.reason) == ("failed", Reason.signal)
    assert "signal 9 (SIGKILL)" in end.cause
    assert time.monotonic() - began < 60


@every_way
def test_a_sharded_trial_past_its_deadline_is_ended(project: Path, tiny_bert: Path, way: str) -> None:
    long = study(project, tiny_bert, budget={"trial_hours": 5 / 3600})
    with Executor(long, [Slot(ranks=2)]) as executor:
        executor.wait_ready()
        end, _ = ended(executor, spec(project, 50, {"num_train_epochs": 2000, **SHARDED[way]}))
    assert (end.ending, end.reason) == ("failed", Reason.deadline)
