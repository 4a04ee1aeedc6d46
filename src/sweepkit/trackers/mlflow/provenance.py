"""A study's provenance, its file, code and data, as MLflow's tags, artifacts and inputs; imports no mlflow."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from sweepkit.study.damage import read_or_note
from sweepkit.study.errors import InputError
from sweepkit.study.identity import Identity
from sweepkit.study.paths import ABOUT, study_files
from sweepkit.study.secrets import scrub
from sweepkit.study.study import StudyData
from sweepkit.tasks.data import SPLITS, SUFFIXES
from sweepkit.tasks.references import PACKAGE, is_url, package_path
from sweepkit.trackers.mlflow.address import tracking_uri
from sweepkit.trackers.mlflow.records import milliseconds, text
from sweepkit.trackers.mlflow.state import folders
from sweepkit.trial.log import TrialLog

LONGEST_DIFF = 1_000_000
"""Most characters of a diff that are kept."""
LONGEST_SOURCE = 60_000
"""Most characters of a data set's source; MLflow takes 65,535."""
TYPES = {
    "bool": "boolean",
    "string": "string",
    "binary": "binary",
    "float16": "float",
    "float32": "float",
    "float64": "double",
    "int8": "integer",
    "int16": "integer",
    "int32": "integer",
    "int64": "long",
}
"""Type of a column in `datasets` → in MLflow's schema."""


def study_id(study: StudyData) -> str:
    """Return the id in the study's ``study.json``; before there is one, an id derived from its folder."""
    known = Identity.load(study.place)
    return known.id if known else str(uuid.uuid5(uuid.NAMESPACE_URL, study.place.folder.as_uri()))


def experiment(study: StudyData) -> str:
    """Return the name of the study's experiment."""
    return study.tracking.experiment or study.name


def digest(study: StudyData, *answer: Any) -> str:
    """Return a digest of where a study is recorded and, with an answer, of what its end says there."""
    known = [scrub(tracking_uri(study)), experiment(study), *([study.tracking.register_as, *answer] if answer else [])]
    return hashlib.sha256(json.dumps(known, default=str).encode()).hexdigest()


def began(study: StudyData) -> int:
    """Return when the study began, in milliseconds: before any of its trials."""
    known = Identity.load(study.place)
    starts = [TrialLog(study.place.trial(number)).first_start() for number in folders(study.place)]
    times = [start.at for start in starts if start] + ([known.created.timestamp()] if known else [])
    return milliseconds(min([time.time(), *times])) - 1


def answer_text(answer: Mapping[str, Any]) -> str:
    """Return a study's answer in sentences, beginning with why it is not the last word where it is not."""
    status, reason = answer.get("status", "done"), answer.get("reason", "")
    cut_short = f"{status.capitalize()}{reason and ': '}{reason}." if status != "done" else ""
    return " ".join(filter(None, [cut_short, answer.get("says", ""), answer.get("verdict", "")]))


def description(study: StudyData, answer: str = "") -> dict[str, str]:
    """Return the tags of the parent run that describe the study, its note in MLflow included, which begins with the answer."""
    goals = ", ".join(f"{goal.direction} {goal.metric}" for goal in study.objective.goals)
    lines = [
        *([answer, ""] if answer else []),
        study.question,
        "",
        f"Objective: {goals} ({study.objective.value}). Sampler: {study.sampler.title}.",
    ]
    lines += [f"Pruner: {study.pruner.title}. Searched: {', '.join(study.space) or 'nothing'}."]
    return {
        "mlflow.note.content": "\n".join(lines).strip(),
        "sweepkit.trial.objective": goals,
        "sweepkit.sampler": study.sampler.title,
        "sweepkit.pruner": study.pruner.title,
    }


def artifacts(study: StudyData) -> Iterator[tuple[str, str]]:
    """Yield (path, text) of the parent run's artifacts: the study as written, as resolved, and the uncommitted diff."""
    place = study.place
    for path in islice(study_files(place.home, study.name), 1):
        yield f"study/{path.name}", path.read_text(errors="replace")
    if known := Identity.load(place):
        yield "study/resolved.json", json.dumps(known.plain(), indent=2)
    commit, diff = _git(place.home, "rev-parse", "HEAD"), _diff(place.home)
    if diff:
        short = hashlib.sha256(diff.encode()).hexdigest()[:8]
        yield f"code/{commit[:10] or 'no-commit'}-{short}.diff", diff


def code(study: StudyData) -> dict[str, str]:
    """Return MLflow's tags for the code of a run."""
    home = study.place.home
    tags = {
        "mlflow.source.name": f"sweep run {study.name}",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": _git(home, "rev-parse", "HEAD"),
        "mlflow.source.git.branch": _git(home, "rev-parse", "--abbrev-ref", "HEAD"),
        "mlflow.source.git.repoURL": re.sub(r"(?<=://)[^/]*@", "", _git(home, "config", "--get", "remote.origin.url")),
    }
    if tags["mlflow.source.git.commit"]:
        tags["mlflow.source.git.dirty"] = str(bool(_git(home, "status", "--porcelain", "--untracked-files=no")))
    return {name: value for name, value in tags.items() if value}


def about(data: Path | None) -> dict[str, Any]:
    """Return the description in a folder of prepared data; empty where there is none."""
    return (read_or_note(data / ABOUT, dict[str, Any], "the data is not described in MLflow") if data else None) or {}


def dataset(study: StudyData, data: Path | None) -> dict[str, str]:
    """Return the fields of MLflow's Dataset for the prepared data; empty where nothing is known."""
    facts = about(data)
    if data is None or not facts:
        return {}
    given = study.task.options.get("data", study.task.path or "")
    rows = facts.get("rows", {})
    total = sum(rows.values()) if isinstance(rows, Mapping) else rows
    kind, source = _source(study, given)
    info = read_or_note(data / "train" / "dataset_info.json", dict[str, Any], "MLflow gets no schema of the data") or {}
    schema = _schema(info.get("features", {}))
    return {
        "name": (given if isinstance(given, str) else _named(given)) or study.name,
        "digest": str(facts.get("digest", data.name)),
        "source_type": kind,
        "source": json.dumps(source, default=str),
        "profile": json.dumps(
            {"rows": rows} if facts.get("streamed") else {"num_rows": total, "rows": rows}, default=str
        ),
        **({"schema": json.dumps({"mlflow_colspec": schema})} if schema else {}),
    }


def _source(study: StudyData, given: Any) -> tuple[str, dict[str, Any]]:
    """Return MLflow's type of a source, and the source: arguments of ``load_dataset``, or the code that made the rows."""
    if not study.task.type or not isinstance(given, Mapping):
        return "code", {"tags": {"mlflow.source.type": "LOCAL", "mlflow.source.name": study.task.path or study.name}}
    if name := given.get("name"):
        return "hugging_face", {"path": name, "config_name": given.get("config"), "revision": given.get("revision")}
    listed = {split: given.get(split) for split in SPLITS} | ({"train": given["path"]} if "path" in given else {})
    texts = {split: [text] if isinstance(text, str) else list(text) for split, text in listed.items() if text}
    files = {split: [_absolute(text, study.home) for text in each] for split, each in texts.items()}
    first = next(iter(files.values()))[0]
    suffix = Path(first.removesuffix(".gz")).suffix.lower()
    builder = given.get("format") or SUFFIXES.get(suffix, "imagefolder")
    if builder == "imagefolder":
        files = {split: [f"{folder}/**" for folder in each] for split, each in files.items()}
    found = {"path": "csv" if builder == "tsv" else builder, "data_files": files}
    return "hugging_face", found if len(json.dumps(found)) < LONGEST_SOURCE else {"path": found["path"]}


def _absolute(text: str, home: Path) -> str:
    """Return a file's path or URL as ``load_dataset`` takes it from anywhere."""
    if is_url(text):
        return text
    try:
        return str(package_path(text) if text.startswith(PACKAGE) else (home / Path(text).expanduser()).resolve())
    except InputError:
        return text  # the package is not installed any more


def _schema(features: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return MLflow's columns for the features that a folder of `datasets` describes."""
    return [{"name": name, **_column(feature)} for name, feature in features.items()]


def _column(feature: Any) -> dict[str, Any]:
    kind = feature.get("_type") if isinstance(feature, Mapping) else ""
    if kind in ("List", "LargeList", "Sequence") and isinstance(feature.get("feature"), Mapping):
        inner = _column(feature["feature"])
        return {"type": "array", "items": {name: inner[name] for name in inner if name != "required"}, "required": True}
    name = "int64" if kind == "ClassLabel" else str(feature.get("dtype", "")) if kind == "Value" else ""
    known = TYPES.get(name.removeprefix("u").removeprefix("large_"))
    return {"type": known, "required": True} if known else {"type": "any", "required": False}


def _named(source: Any) -> str:
    if isinstance(source, Mapping):
        return text(source.get("name") or source.get("train") or source.get("path") or next(iter(source.values()), ""))
    return text(source[0]) if isinstance(source, list) and source else ""


def _diff(home: Path) -> str:
    """Return what is not committed: the names of untracked files, then the diff."""
    if not _git(home, "rev-parse", "--is-inside-work-tree"):
        return ""
    base = "HEAD" if _git(home, "rev-parse", "HEAD") else "--cached"
    diff = _git(home, "diff", "--no-color", "--no-ext-diff", "--no-textconv", base)
    untracked = _git(home, "ls-files", "--others", "--exclude-standard", "--full-name").splitlines()
    if len(diff) > LONGEST_DIFF:
        diff = f"{diff[:LONGEST_DIFF]}\n# cut here: the diff has {len(diff):,} characters\n"
    return "".join(f"# not in git: {name}\n" for name in untracked[:1000]) + diff


def _git(home: Path, *arguments: str) -> str:
    try:
        command = ["git", "-C", str(home), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
