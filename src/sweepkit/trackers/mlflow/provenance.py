"""A study's provenance, its file, code and data, as MLflow's tags, artifacts and inputs; imports no mlflow."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sweepkit.study.paths import ABOUT
from sweepkit.study.study import StudyData
from sweepkit.trackers.mlflow.records import read_json, text

LONGEST_DIFF = 1_000_000
"""Most characters of a diff that are kept."""


def study_id(study: StudyData) -> str:
    """Return the id in the study's ``study.json``; before there is one, an id derived from its folder."""
    return str(
        read_json(study.place.study_json).get("id") or uuid.uuid5(uuid.NAMESPACE_URL, study.place.folder.as_uri())
    )


def description(study: StudyData) -> dict[str, str]:
    """Return the tags of the parent run that describe the study, its note in MLflow included."""
    goals = ", ".join(f"{goal.direction} {goal.metric}" for goal in study.objective.goals)
    lines = [study.question, "", f"Objective: {goals} ({study.objective.value}). Sampler: {study.sampler.type}."]
    lines += [f"Pruner: {study.pruner.type}. Searched: {', '.join(study.space) or 'nothing'}."]
    return {
        "mlflow.note.content": "\n".join(lines).strip(),
        "sweepkit.trial.objective": goals,
        "sweepkit.sampler": study.sampler.type,
        "sweepkit.pruner": study.pruner.type,
    }


def artifacts(study: StudyData) -> Iterator[tuple[str, str]]:
    """Yield (path, text) of the parent run's artifacts: the study as written, as resolved, and the uncommitted diff."""
    place = study.place
    for path in sorted(place.home.glob("*.y*ml")):
        written = path.read_text(errors="replace")
        if re.search(rf"(?m)^name:\s*[\"']?{re.escape(study.name)}[\"']?\s*(#.*)?$", written):
            yield f"study/{path.name}", written
            break
    if place.study_json.exists():
        resolved = json.loads(place.study_json.read_text())
        yield "study/resolved.json", json.dumps(resolved, indent=2)
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
        "mlflow.source.git.repoURL": _git(home, "config", "--get", "remote.origin.url"),
    }
    if tags["mlflow.source.git.commit"]:
        tags["mlflow.source.git.dirty"] = str(bool(_git(home, "status", "--porcelain", "--untracked-files=no")))
    return {name: value for name, value in tags.items() if value}


def about(data: Path | None) -> dict[str, Any]:
    """Return the description in a folder of prepared data; empty where there is none."""
    return read_json(data / ABOUT) if data else {}


def dataset(study: StudyData, data: Path | None) -> dict[str, str]:
    """Return the name, digest, source, source type and profile of the prepared data; empty where nothing is known."""
    facts = about(data)
    if data is None or not facts:
        return {}
    source = facts.get("source", study.task.options.get("data", study.task.path or ""))
    rows = facts.get("rows", {})
    total = sum(rows.values()) if isinstance(rows, Mapping) else rows
    return {
        "name": (source if isinstance(source, str) else _named(source)) or study.name,
        "digest": str(facts.get("digest", data.name)),
        "source_type": "huggingface" if study.task.type else "task",
        "source": json.dumps({"task": study.task.type or study.task.path, "data": source}, default=str),
        "profile": json.dumps({"num_rows": total, "rows": rows}, default=str),
    }


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
