"""The private names of MLflow that its tracker depends on, all of them; a test holds them to the installed version.

MLflow keeps one pool of connections for each address as long as the process lives, and has no call to close it. Where the file
behind an SQLite address was removed and made again, the pool goes on writing to the one that is gone.
"""

from __future__ import annotations

from mlflow.store.model_registry import sqlalchemy_store as registry
from mlflow.store.tracking import sqlalchemy_store as tracking

NAMES = {"tracking": (tracking.SqlAlchemyStore, "_engine_map"), "registry": (registry.SqlAlchemyStore, "_engine_map")}
"""MLflow's store → class and attribute: address → SQLAlchemy's engine."""


def close_connections(uri: str) -> None:
    """Close the connections of this process to a database that nobody is using; the next use opens new ones."""
    for store, name in NAMES.values():
        if engine := getattr(store, name).get(uri):
            engine.dispose()
