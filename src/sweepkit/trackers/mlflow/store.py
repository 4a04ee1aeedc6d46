"""An open MLflow store, and what its names and values may be. Knows no trial."""

from __future__ import annotations

import fcntl
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from mlflow.entities import Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.validation import (
    MAX_ENTITIES_PER_BATCH,
    MAX_ENTITY_KEY_LENGTH,
    MAX_PARAM_VAL_LENGTH,
    MAX_PARAMS_TAGS_PER_BATCH,
    MAX_TAG_VAL_LENGTH,
)

from sweepkit.study.paths import Place
from sweepkit.trackers.mlflow.address import artifact_root, is_server, sqlite_file

# The same errors are raised as exceptions; the log would print them with their stack.
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


class Store:
    """An open MLflow store. The first driver that opens a database creates its tables; the others wait for it."""

    def __init__(self, uri: str, place: Place) -> None:
        self.uri = uri
        self._root = artifact_root(uri, place.root)
        with _only_one(uri, place):
            if file := sqlite_file(uri):
                file.parent.mkdir(parents=True, exist_ok=True)
            self.client = MlflowClient(uri, registry_uri=uri)
            self.client.search_experiments(max_results=1)

    def experiment(self, name: str) -> str:
        """Return the id of the experiment of this name; create it, or restore it where it was deleted."""
        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                where = (self._root / plain(name)).as_uri() if self._root else None
                return self.client.create_experiment(name, where, {"mlflow.experimentKind": "custom_model_development"})
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = self.client.get_experiment_by_name(name)
                assert found is not None
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def runs(self, experiment_id: str, tags: Mapping[str, str]) -> Iterator[Run]:
        """Yield the active runs of an experiment with all these tags, oldest first."""
        where = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
        token = None
        while True:
            page = self.client.search_runs(
                [experiment_id], where, ViewType.ACTIVE_ONLY, 1000, ["attributes.start_time ASC"], token
            )
            yield from page
            token = page.token
            if not token:
                return

    def log(
        self,
        run_id: str,
        *,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Send metrics, parameters and tags in as few requests as possible; sending them again changes nothing.

        A request costs a store about 10 ms, however little is in it.
        """
        entries = [Param(key, value) for key, value in (params or {}).items()]
        labels = [RunTag(key, value) for key, value in (tags or {}).items()]
        few = MAX_PARAMS_TAGS_PER_BATCH
        while entries or labels or metrics:
            room = MAX_ENTITIES_PER_BATCH - len(entries[:few]) - len(labels[:few])
            self.client.log_batch(run_id, metrics[:room], entries[:few], labels[:few], synchronous=True)
            entries, labels, metrics = entries[few:], labels[few:], metrics[room:]


def key(name: str) -> str:
    """Return a name that MLflow accepts for a metric, a parameter or a tag.

    >>> key("eval_f1@5//x")
    'eval_f1_5/x'
    """
    return re.sub(r"/+", "/", re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)).strip("/.")[:MAX_ENTITY_KEY_LENGTH]


def plain(name: str) -> str:
    """Return a name that is valid for a folder and a model."""
    return re.sub(r"[^\w-]", "-", name, flags=re.ASCII)


def fits(values: Mapping[str, str], note: Callable[[str], str]) -> dict[str, str]:
    """Return parameters with every value too long for MLflow replaced by ``note(value)``."""
    return {name: value if len(value) <= MAX_PARAM_VAL_LENGTH else note(value) for name, value in values.items()}


def tag(text: str) -> str:
    """Return text that fits into a tag, its middle cut out where it is too long."""
    room = MAX_TAG_VAL_LENGTH
    return text if len(text) <= room else f"{text[: room // 2 - 10]} [ … ] {text[-(room // 2 - 10) :]}"


@contextmanager
def _only_one(uri: str, place: Place) -> Iterator[None]:
    if is_server(uri):
        yield
        return
    path = sqlite_file(uri)
    folder = path.parent if path and not path.is_relative_to(place.root) else place.runs
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".mlflow.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
