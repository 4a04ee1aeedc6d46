"""The study: the question as frozen, validated data.

The docstrings of its fields are the reference of the study file (``sweep schema --explain``) and of its JSON schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias

from pydantic import BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationInfo, field_validator, model_validator

from sweepkit.study.backends import BACKENDS, BackendKind, meanings
from sweepkit.study.budget import Budget, Checkpoints, Confirm, Retries
from sweepkit.study.names import depth, parts, with_key
from sweepkit.study.objective import Objective
from sweepkit.study.parameters import Choice, Expression, Float, Int, Section, flatten
from sweepkit.study.paths import LONGEST_NAME, NAME, Place
from sweepkit.study.samplers import PROMOTE, PRUNERS, SAMPLERS, Pruner, Sampler, Together, list_names
from sweepkit.study.secrets import learn
from sweepkit.study.space import Space, spread

if TYPE_CHECKING:  # a type checker cannot read a closed set from a table
    SamplerName: TypeAlias = str
    PrunerName: TypeAlias = str
    BackendName: TypeAlias = str
else:
    SamplerName = Literal[tuple(SAMPLERS)]
    PrunerName = Literal[tuple(PRUNERS)]
    BackendName = Literal[tuple(BACKENDS)]


Names = Annotated[
    list[str],
    BeforeValidator(lambda given: [given] if isinstance(given, str) else given, json_schema_input_type=str | list[str]),
]
"""A list of texts; one may be written without brackets."""
AUTO, MLFLOW = "auto", "mlflow:"
"""In ``start_from``: the project's studies that fit; the beginning of an experiment's name."""
OPEN = ("question", "task", "training", "backend", "storage", "tracking")
"""Keys of a study in which a secret may stand. What is searched is none: every trial's record has its values."""


class _Open(Section):
    """A section whose further keys are options of its ``type``, checked against that type's own signature."""

    model_config = ConfigDict(extra="allow")

    @property
    def options(self) -> dict[str, Any]:
        """The further keys."""
        return dict(self.model_extra or {})


class TaskSpec(_Open):
    """What is trained. Further keys are options of the task."""

    type: str | None = None
    """Built-in kind; ``sweep schema --explain`` lists them with their options."""
    path: str | None = None
    """``file.py:Class``, relative to the study file: your own Task. Exactly one of type and path is required."""
    pickle: str | None = None
    """Pickled Task; written for Tasks defined in Python (in a notebook cell), not by hand."""

    @model_validator(mode="after")
    def _one(self) -> TaskSpec:
        if [self.type, self.path, self.pickle].count(None) != 2:
            raise ValueError("exactly one of type (a built-in kind) and path (file.py:Class) is needed")
        return self


class _Chosen(_Open):
    """A row of a table, or a class of one's own."""

    path: str | None = None
    """``file.py:Class``, relative to the study file, or ``package.module:Class``, in place of type: your own subclass of
    Optuna's BaseSampler or BasePruner; or ``optunahub:samplers/NAME``, OptunaHub's. Each trial's sampler and each decision's
    pruner are made anew, so that a study that was killed goes on as if it had not been: a sampler's ``seed``, if it takes one,
    follows from the study's and the trial's number, and what the class keeps in itself is gone."""
    _home: Path = PrivateAttr(default_factory=Path.cwd)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self.model_dump() == other.model_dump()  # wherever the study lies

    @property
    def title(self) -> str:
        """The name of its row, or the path."""
        return self.path or str(getattr(self, "type"))  # noqa: B009  # the subclasses' own field

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        chosen, default = getattr(self, "type"), type(self).model_fields["type"].default  # noqa: B009  # see above
        if self.path is not None and chosen != default:
            raise ValueError("type and path exclude each other; leave one out")
        return self


class SamplerSpec(_Chosen):
    """How Optuna proposes configurations. Further keys are the Optuna sampler's own options."""

    type: SamplerName = Field(default="tpe", description=f"{list_names(SAMPLERS)}.")
    seed: int = 0
    """Seed of the search; with one trial at a time, the same seed gives the same sequence of trials, even if interrupted."""

    @property
    def kind(self) -> Sampler:
        """The sampler's row in the table."""
        if self.path is not None:
            return Sampler(self.path, home=self._home, together=Together.unconditional)
        return SAMPLERS[self.type]


class PrunerSpec(_Chosen):
    """When a hopeless trial is stopped; the baseline never is. Further keys are the Optuna pruner's own options; they count
    evaluations."""

    type: PrunerName = Field(
        default="none",
        description=f"{list_names(PRUNERS)}. With pbt and pb2 all trials of the budget train side by side, and at "
        "evaluations the worst copy the weights of the best and continue with other values. Their options are Ray "
        "Tune's, in evaluations: perturbation_interval (1), quantile_fraction (0.25) and, for pbt, burn_in_period (0), "
        "resample_probability (0.25) and perturbation_factors ([1.2, 0.8]). asha has the option promote: trials pause at "
        "rungs instead of being pruned; a free slot resumes one that is among the best 1/reduction_factor of its rung, "
        "else starts a new trial. What is still paused when the study is done is pruned with its value so far.",
    )

    @property
    def kind(self) -> Pruner:
        """The pruner's row in the table."""
        return PRUNERS[self.type] if self.path is None else Pruner(self.path, home=self._home)

    @property
    def population(self) -> bool:
        """Whether trials train side by side and copy each other's weights."""
        return self.kind.population

    @property
    def pauses(self) -> bool:
        """Whether trials may pause at evaluations and go on later."""
        return self.kind.pauses or (self.kind.promotes and bool(self.options.get(PROMOTE)))

    @property
    def stops(self) -> bool:
        """Whether it may stop trials early."""
        return self.title != "none" and not self.population


class BackendSpec(Section):
    """Where trials run."""

    type: BackendName = Field(default="optuna", description=f"{meanings()}.")
    parallel: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """Trials that run at the same time; ``auto``: as many as the GPUs (without any, the cores and the memory) allow."""
    gpus_per_trial: Literal["auto"] | Annotated[float, Field(ge=0)] = "auto"
    """GPUs per trial: 0, a fraction such as 0.5, or a whole number; ``auto``: one for each rank if there is a GPU, which
    trials of one rank share where it has the memory and the time, as measured before trial 0."""
    cpus_per_trial: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    """CPU threads per trial; ``auto``: the cores divided among the parallel trials."""
    ranks_per_trial: int = Field(default=1, ge=1)
    """Processes per trial (torch.distributed); the trial's GPUs are divided among them."""
    accelerate: str | None = Field(default=None, exclude=True)
    """Config file of ``accelerate config``, relative to the study file: ranks, mixed precision, torch.compile, FSDP, DeepSpeed.
    It is read with the study and recorded as the settings that result; the study's own keys win."""
    address: str | None = None
    """Ray only: address of the cluster, or ``auto``; without it Ray starts on this machine."""
    path: str | None = None
    """Ray only: folder or fsspec URL (``s3://…`` with s3fs installed) that all nodes can access, for clusters whose nodes do
    not share the study's folder. Checkpoints and logs are exchanged through it and end up in the study's folder. Task, data
    files and environment must exist on each node."""

    def gpus(self, found: bool) -> float:
        """Return the GPUs of a trial; ``found``: whether there are any, which ``auto`` goes by."""
        return float(self.ranks_per_trial * found if self.gpus_per_trial == "auto" else self.gpus_per_trial)

    @field_validator("accelerate")
    @classmethod
    def _read(cls, accelerate: str | None) -> None:
        if accelerate is not None:  # else it was read
            raise ValueError("is read with a study file, or where a Study is made with the backend as a mapping")

    @property
    def kind(self) -> BackendKind:
        """The backend's row in the table."""
        return BACKENDS[self.type]


class Tracking(Section):
    """Where runs are recorded."""

    uri: str = "sqlite:///mlflow.db"
    """MLflow tracking URI; a relative SQLite path starts at the project root. ``none`` turns tracking off."""
    register_as: str | None = Field(default=None, alias="register")
    """Name of the registered model that the winner becomes a version of, with alias ``champion``."""
    experiment: str | None = None
    """Name of the MLflow experiment; by default the study's name."""
    copy_models: bool = False
    """Whether models in MLflow on this machine are copies; else they are hard links to ``best/``, stored once on one disk."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)


class StudyData(Section):
    """A study: what is trained, what may vary, which metric counts, and how much may be spent."""

    model_config = ConfigDict(title="Study")

    name: str = Field(pattern=NAME, max_length=LONGEST_NAME)
    """Letters, digits, dot, dash and underscore; also the name of the study's folder and MLflow experiment."""
    question: str = ""
    """What the study should find out, in one sentence; shown in MLflow and the report."""
    task: TaskSpec
    """What is trained."""
    training: dict[str, Any] = Field(default_factory=dict)
    """Fixed values of every trial: TrainingArguments by their own names, ``model.*`` and ``peft.*``."""
    objective: Objective
    """Which metric counts, and how."""
    sweep: str | None = None
    """Recipe, by name or path; the study's own keys override it."""
    space: Space = Field(default_factory=dict)
    """What may vary: name → parameter. A dotted name, or a parameter written inside a mapping, is a key of a mapping-valued
    field: ``lr_scheduler_kwargs.min_lr_rate``."""
    constraints: list[str] = Field(default_factory=list)
    """Arithmetic conditions over hyperparameters; proposals that break one are drawn again and cost no trial."""
    duplicates: Literal["redraw", "train"] = "redraw"
    """What happens to a configuration that was already tried: ``redraw`` proposes another, ``train`` trains it again."""
    sampler: SamplerSpec = Field(default_factory=SamplerSpec)
    """How configurations are proposed."""
    pruner: PrunerSpec = Field(default_factory=PrunerSpec)
    """When hopeless trials are stopped."""
    search: Literal["auto"] | None = Field(default=None, exclude=True)
    """``auto``, in place of sampler and pruner: trials pause, and those that are expected to end best go on. It is written out
    as what it stands for, ``sampler: {type: random}`` and ``pruner: {type: freeze-thaw}``; ``sampler.seed`` may be given."""
    baseline: dict[str, Any] | None = None
    """Trial 0: what you would use without tuning; omitted names have their consumer's default."""
    enqueue: list[dict[str, Any]] = Field(default_factory=list)
    """Configurations to try right after the baseline; omitted names are sampled."""
    start_from: Names = Field(default_factory=list)
    """Earlier studies whose best configurations are tried next, at most a fifth of ``budget.trials``: names of the project's
    studies, ``mlflow:EXPERIMENT``, or ``auto`` for those of the same kind and model family that search the same names.
    Decided at the first start; ``search: auto`` also learns from the ranks of their trials, for as long as these agree."""
    budget: Budget = Field(default_factory=Budget)
    """How much may be spent."""
    checkpoints: Checkpoints = Field(default_factory=Checkpoints)
    """Which checkpoints are kept."""
    retries: Retries = Field(default_factory=Retries)
    """How often a trial is restarted."""
    confirm: Confirm | None = None
    """Train the best trials again with new seeds at the end."""
    seed_per_trial: bool = False
    """Give each trial its own seed (training.seed + trial number) instead of the same one."""
    backend: BackendSpec = Field(default_factory=BackendSpec)
    """Where trials run."""
    storage: str = "journal"
    """``journal`` (a file in the study's folder) or an Optuna storage URL, for example postgresql://…"""
    tracking: Tracking = Field(default_factory=Tracking)
    """Where runs are recorded."""
    trust_remote_code: bool = False
    """Allow models and datasets from the hub to run their own code."""

    _home: Path | None = PrivateAttr(default=None)
    _place: Place | None = PrivateAttr(default=None)

    @property
    def home(self) -> Path:
        """Folder in which relative paths start: the study file's, or the current one for a study made in Python."""
        return self._home or Path.cwd()

    def at(self, home: Path) -> Self:
        """Return the same study with its relative paths starting from ``home``."""
        copy = self.model_copy(update={"sampler": self.sampler.model_copy(), "pruner": self.pruner.model_copy()})
        learn({"storage": self.storage, "uri": self.tracking.uri})  # a copy's fields were not validated
        copy._home, copy._place = home.resolve(), None
        for section in (copy.sampler, copy.pruner):
            section._home = copy._home
        return copy

    @property
    def place(self) -> Place:
        """The study's files and folders, decided once."""
        if self._place is None or (self._place.name, self._place.home) != (self.name, self.home.resolve()):
            self._place = Place.of(self.name, self.home)
        return self._place

    @property
    def fixed(self) -> dict[str, Any]:
        """Every fixed value by its full name, the task's options included."""
        return {**self.training, **{f"task.{name}": value for name, value in self.task.options.items()}}

    @property
    def resources(self) -> BackendSpec:
        """Where trials run, as it comes out: those that train on CPUs by ``use_cpu`` have no GPU unless the study says so."""
        on_cpu = bool(self.training.get("use_cpu")) and self.backend.gpus_per_trial == "auto"
        return self.backend.model_copy(update={"gpus_per_trial": 0.0}) if on_cpu else self.backend

    def by_consumer(self, hyperparameters: Mapping[str, Any]) -> Values:
        """Return a trial's fixed and searched values by their consumer.

        A value inside a mapping leaves the mapping's other fixed keys as they are.
        """
        found: dict[str, dict[str, Any]] = {"": {}, "model": {}, "peft": {}, "task": {}}
        given = {**self.training, **hyperparameters}
        for name in sorted(given, key=depth):
            namespace, (field, *inside) = parts(name)
            own = found[namespace]
            if not inside:
                own[field] = given[name]
            elif namespace in ("", "peft") or isinstance(own.get(field), Mapping):
                own[field] = with_key(own.get(field), inside, given[name])
            else:
                own[".".join((field, *inside))] = given[name]
        return Values(found[""], found["model"], found["peft"], found["task"])

    @model_validator(mode="before")
    @classmethod
    def _learn_secrets(cls, data: Any) -> Any:
        learn({key: data[key] for key in OPEN if key in data} if isinstance(data, Mapping) else None)
        return data

    @model_validator(mode="before")
    @classmethod
    def _resolve_search(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or data.get("search") != "auto":
            return data
        sampler = {} if data.get("sampler") is None else data["sampler"]
        if "pruner" in data or not isinstance(sampler, Mapping) or sampler.keys() - {"seed"}:
            return data
        rest = {key: value for key, value in data.items() if key != "search"}
        return {**rest, "sampler": {"type": "random", **sampler}, "pruner": {"type": "freeze-thaw"}}

    @field_validator("search")
    @classmethod
    def _alone(cls, search: str | None) -> None:
        if search is not None:  # else it was resolved
            raise ValueError("auto replaces sampler and pruner; leave these out (except sampler.seed), or drop search")

    @field_validator("space", mode="before")
    @classmethod
    def _flat(cls, space: Any) -> Any:
        return flatten(space) if isinstance(space, Mapping) else space

    @field_validator("baseline", "enqueue")
    @classmethod
    def _by_name(cls, given: Any, info: ValidationInfo) -> Any:
        space = info.data.get("space", {})
        return (
            [spread(space, values) for values in given] if isinstance(given, list) else given and spread(space, given)
        )

    @field_validator("space")
    @classmethod
    def _parameters(cls, space: Space) -> Space:
        for name, parameter in space.items():
            if not isinstance(parameter, (Float, Int, Choice, Expression)):
                rule = "needs low and high, choices or expression"
                raise ValueError(f"{name} {rule}, got {parameter!r}; a fixed value belongs in training")
        return space

    @property
    def several_drivers(self) -> bool:
        """Whether several drivers may run it at once, which only PostgreSQL allows."""
        return self.storage.startswith("postgres")

    @property
    def seed(self) -> int:
        """The seed that all trials share: ``training.seed``, by default 42 as in transformers."""
        return int(self.training.get("seed", 42))


@dataclass(frozen=True)
class Values:
    """A trial's fixed and searched values under their consumers' own names, without prefixes.

    A dotted name among those of the model and the task is a key in a mapping whose other keys are the model's or the task's.
    """

    training: Mapping[str, Any]
    model: Mapping[str, Any]
    peft: Mapping[str, Any]
    task: Mapping[str, Any]
