"""Task: data, model and metrics; the only thing that a user may have to write in Python.

Imports nothing heavy until its data, model or metrics are needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, PrivateAttr, field_validator

from sweepkit.tasks import metrics as metric_modules
from sweepkit.tasks.shapes import Shape

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from transformers import EvalPrediction, PreTrainedModel, Trainer

ALWAYS_REPORTED = frozenset({"eval_loss", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second"})
"""What ``Trainer.evaluate`` reports for every task with a loss."""


@dataclass(frozen=True, kw_only=True)
class Template:
    """What ``sweep new`` and ``sweep tune`` write into a study of this kind, and by what they know its data."""

    metric: str
    """Metric to optimise, without ``eval_``."""
    data: str
    """Shape of the data, in a few words."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options that a new study shows."""
    learning_rate: tuple[str, str] = ("1e-6", "1e-3")
    """Lower and upper end of the searched learning rates, as written in YAML."""
    shapes: tuple[Shape, ...] = ()
    """What the columns of its data are called and hold."""
    model: str = "distilbert/distilbert-base-uncased"
    """Small model of the hub that ``sweep tune`` takes where none is named."""
    adapter: bool = False
    """Whether ``sweep tune`` trains an adapter (LoRA) rather than all weights."""


class Task(BaseModel):
    """What is trained: data, model and metrics. Its fields are its options (``task.*``).

    Your own task defines :meth:`data`, :meth:`model_init` and ``metrics``; everything else has a default. Import heavy
    libraries inside its methods, not at the top of its file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())

    metrics: list[str | dict[str, dict[str, Any]]] = []
    """Metrics by their names in `evaluate`, or paths of metric modules; ``{f1: {average: macro}}`` sets options."""

    template: ClassVar[Template | None] = None
    """Only built-in kinds set it."""
    pipeline_tag: ClassVar[str | None] = None
    """The hub's ``pipeline_tag`` for its models, written into the card of an exported model."""
    micro_batch_matters: ClassVar[bool] = False
    """Whether the loss depends on the micro-batch, as contrastive losses do; it is then never divided to save memory."""
    arguments_type: ClassVar[str] = "transformers.training_args:TrainingArguments"
    """``module:Class`` of the Trainer's arguments, for Trainer subclasses with their own (``trl:SFTConfig``); its fields
    become hyperparameters under their own names."""
    compares: ClassVar[tuple[str, ...]] = ("classes", "numbers")
    """What its metrics compare; see :data:`sweepkit.tasks.metrics.BUNDLED`."""
    decides: ClassVar[Mapping[str, str]] = {}
    """Training arguments that the task decides, so that a study may not set them → the reason."""
    peft_task_type: ClassVar[str | None] = None
    """``task_type`` of the adapter made of ``peft.*`` values: SEQ_CLS, CAUSAL_LM, …"""

    _home: Path | None = PrivateAttr(default=None)
    _trust_remote_code: bool = PrivateAttr(default=False)
    _splits: DatasetDict | None = PrivateAttr(default=None)
    _labelled: bool = PrivateAttr(default=True)
    """Whether the rows to predict have labels."""
    _rule: str = PrivateAttr(default="")
    """See :attr:`decision_rule`."""
    _config: Any = PrivateAttr(default=None)
    """Configuration of the model that is being trained, if it has one."""
    _spec: Any = PrivateAttr(default=None)
    """The TrialSpec, for tasks made from a Trainer whose ``model_init`` takes a trial."""

    @field_validator("metrics")
    @classmethod
    def _once(cls, metrics: list[str | dict[str, dict[str, Any]]]) -> list[str | dict[str, dict[str, Any]]]:
        for entry in metrics:
            if isinstance(entry, dict) and len(entry) != 1:
                raise ValueError(f"an entry is a name or {{name: {{option: value}}}}, got {entry}")
        names = [metric_modules.label(name) for name, _ in _entries(metrics)]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)} is named twice; the second would overwrite the first")
        return metrics

    # Methods that every task defines.

    def data(self) -> DatasetDict:
        """Return the tokenised splits: ``train``, ``validation`` and optionally ``test``.

        Runs once per set of options in a separate process; the result is stored, and every trial memory-maps it. A ``train``
        split that is an IterableDataset is not stored but read by each trial, which needs ``max_steps``; other splits that
        stream are read to their end and stored.
        """
        raise NotImplementedError(f"{type(self).__name__} has no data()")

    def model_init(self, **config: Any) -> PreTrainedModel:
        """Return a fresh model; ``config`` holds the ``model.*`` values. Seeds are set before the call."""
        raise NotImplementedError(f"{type(self).__name__} has no model_init()")

    # Methods that a task may override.

    def compute_metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        """Return name → value of every entry of ``metrics``, without the prefix ``eval_``."""
        return self._score(self.metrics, prediction)

    def decide(self, prediction: EvalPrediction) -> metric_modules.Decided:
        """Return what the metrics compare; override it to compare something else, such as texts.

        The default is the most likely class, a threshold of 0 on each logit where the labels are 0 and 1, or the number
        itself: see :func:`sweepkit.tasks.metrics.decide`. Labels of -100 are ignored.
        """
        regression = getattr(self._config, "problem_type", None) == "regression"  # set by the model's first loss
        return metric_modules.decide(prediction.predictions, prediction.label_ids, regression=regression)

    def processing_class(self) -> Any | None:
        """Return the tokenizer or image processor to save with every checkpoint; None for none."""
        return None

    def data_collator(self) -> Any | None:
        """Return the function that turns rows into a batch; None for the Trainer's default."""
        return None

    def trainer(self, **kwargs: Any) -> Trainer:
        """Return the Trainer; override it to use a subclass. ``kwargs`` are the arguments of ``transformers.Trainer``."""
        from transformers import Trainer

        return Trainer(**kwargs)

    def with_adapter(self, model: Any, config: Any) -> Any:
        """Return the model with the adapter that a PEFT configuration describes; override it for models of other libraries."""
        from peft import get_peft_model

        return get_peft_model(model, config)

    def predict(self, trainer: Trainer, rows: Dataset) -> tuple[dict[str, list[Any]], dict[str, float]]:
        """Return what the model predicts for these prepared rows, as columns, and the metrics (``test_…``).

        The default is what :meth:`decide` decides. No columns: there is no prediction per row.
        """
        from transformers import EvalPrediction

        from sweepkit.tasks import predictions

        output = trainer.predict(rows, metric_key_prefix="test")
        assert output.label_ids is not None
        decided = self.decide(EvalPrediction(output.predictions, output.label_ids))
        names = getattr(self._config, "id2label", None) or {}
        return predictions.columns(decided, output.predictions, names), dict(output.metrics or {})

    def label_columns(self) -> list[str]:
        """Return the columns of the source that say what is to be predicted; rows to predict may lack them."""
        from sweepkit.tasks.data import columns_of

        return [name for _, names, mark in columns_of(self) if mark.label for name in names]

    def any_label(self, label: Any, row: Mapping[str, Any]) -> Any:
        """Return a label of the source that fits an unlabelled row; ``label`` is that of a training row."""
        return label

    def data_notes(self) -> list[str]:
        """Return sentences about the prepared data to read before the first trial."""
        return []

    def left_out(self) -> list[str]:
        """Return sentences about what of the data's files is not read."""
        return []

    @property
    def metric_names(self) -> list[str]:
        """The names of ``metrics``, without options."""
        return [name for name, _ in _entries(self.metrics)]

    @property
    def decision_rule(self) -> str:
        """How the last evaluation turned outputs into predictions, such as ``argmax over 3 classes``; empty before it."""
        return self._rule

    def inputs(self) -> list[Path]:
        """Return the files that :meth:`data` reads; the data is prepared again when one of them changes.

        The default is every option that names an existing file or folder. Overrides raise InputError for missing files.
        """
        from sweepkit.tasks.data import listed_files

        texts = (value for value in self.model_dump().values() if isinstance(value, (str, Path)) and str(value))
        paths = [self.home / Path(text).expanduser() for text in texts if len(str(text)) < 1000]
        return listed_files(path for path in paths if path.exists())

    def reported(self) -> frozenset[str] | None:
        """Return the metrics of an evaluation (``eval_loss``, ``eval_f1``, …); None where only running it can tell.

        A task that overrides :meth:`compute_metrics` lists the names it returns in ``metrics``.
        """
        if type(self).trainer is not Task.trainer:
            return None
        if type(self).compute_metrics is Task.compute_metrics:
            keys = self._keys()
        else:
            keys = frozenset(f"eval_{name}" for name in self.metric_names) or None
        return None if keys is None else ALWAYS_REPORTED | keys

    # What sweepkit provides.

    @property
    def home(self) -> Path:
        """The study file's folder, which relative paths start from."""
        return self._home or Path.cwd()

    @property
    def trust_remote_code(self) -> bool:
        """Whether the study allows models from the hub to run their own code."""
        return self._trust_remote_code

    @property
    def splits(self) -> DatasetDict:
        """The prepared splits; without preparation the result of :meth:`data`, which then runs once."""
        if self._splits is None:
            self._splits = self.data()
        return self._splits

    def _score(self, metrics: list[str | dict[str, dict[str, Any]]], prediction: EvalPrediction) -> dict[str, float]:
        """Return name → value of each of these metrics."""
        decided = self.decide(prediction)
        self._rule = decided.rule
        result: dict[str, Any] = {}
        for name, options in _entries(metrics):
            if metric_modules.of_loss(name):
                continue
            if decided.average and name in metric_modules.AVERAGED:
                options = {"average": decided.average, **options}
            metric = metric_modules.load(self._metric(name), decided.compares(name))
            predictions = decided.of(name)
            metric_modules.check_types(metric, predictions)
            found = metric.compute(predictions=predictions, references=decided.references, **options)
            for key, value in found.items():
                result[key] = value if isinstance(value, (list, dict, str)) else float(value)
        return result

    def _keys(self) -> frozenset[str] | None:
        """Return the names of ``metrics`` in an evaluation; None where one of them is not bundled."""
        if any(name not in metric_modules.BUNDLED for name in self.metric_names):
            return None
        return frozenset(f"eval_{name}" for name in self.metric_names)

    def _metric(self, name: str) -> str:
        """Return a metric's name, or its path where it names an existing one."""
        if name in metric_modules.BUNDLED:
            return name
        path = (self.home / name).expanduser()
        return str(path) if path.exists() else name


def _entries(metrics: list[str | dict[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    return [pair for entry in metrics for pair in ([(entry, {})] if isinstance(entry, str) else entry.items())]
