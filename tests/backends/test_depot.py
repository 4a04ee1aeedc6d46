"""Files that move between machines: complete or not at all, and downloaded once."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from making import spec, toy_study
from object_store import object_store
from sweepkit.study.errors import InputError
from sweepkit.trial.events import Checkpointed, Finished

pytest.importorskip("ray", reason="Ray Tune is missing; pip install 'sweepkit[ray]'")


@pytest.fixture(params=["file", "folder", "memory", pytest.param("s3", marks=pytest.mark.slow)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "s3":
        with object_store("depot") as bucket:
            yield f"{bucket}/checkpoints"
    else:
        yield {"file": f"file://{tmp_path}/depot", "folder": f"{tmp_path}/depot", "memory": "memory://depot"}[
            request.param
        ]


def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "here" / "checkpoint-4"
    (folder / "inner").mkdir(parents=True)
    (folder / "model").write_text("weights")
    (folder / "inner" / "state").write_text("momenta")
    return folder


def test_an_upload_is_downloaded_complete_and_once(url: str, tmp_path: Path) -> None:
    from sweepkit.backends.ray.files import Depot

    target = tmp_path / "there" / "arrived"
    Depot(url, "study").upload("0001/last", checkpoint(tmp_path))
    assert Depot(url, "study").download("0001/last", target)
    found = {str(path.relative_to(target)): path.read_text() for path in target.rglob("*") if path.is_file()}
    assert found == {"model": "weights", "inner/state": "momenta"}
    assert not Depot(url, "study").download("0001/last", target)
    Depot(url, "study").clear()


def test_an_incomplete_upload_is_not_downloaded_and_is_cleared(tmp_path: Path) -> None:
    from sweepkit.backends.ray.files import Depot

    depot = Depot(f"file://{tmp_path}/depot", "study")
    depot.upload("0001/last", checkpoint(tmp_path))
    (tmp_path / "depot" / "study" / "0001" / "last.whole").unlink()
    assert not depot.download("0001/last", tmp_path / "arrived")
    depot.clear()
    assert list((tmp_path / "depot").iterdir()) == []


def test_a_trials_files_come_home_and_what_it_goes_on_from_goes_out(project: Path, tmp_path: Path) -> None:
    from sweepkit.backends.ray.files import DriverFiles, NodeFiles

    study = toy_study(project, backend={"type": "ray", "path": f"{tmp_path}/depot"})
    node, home, place = NodeFiles(study), DriverFiles(study), study.place.trial(0)
    for step in (4, 8):
        given = node.receive(spec(project, 0, attempt=step))
        written = Path(given.directory) / "last" / f"checkpoint-{step}"
        written.mkdir(parents=True)
        (written / "model").write_text(f"weights {step}")
        told = Checkpointed(trial=0, at=0.0, step=step, role="last", path=str(written))
        assert home.receive(node.send(told)) == replace(told, path=f"{place}/last/checkpoint-{step}")
        assert [path.name for path in (place / "last").iterdir()] == [f"checkpoint-{step}"]
    (Path(given.directory) / "console.log").write_text("said")
    home.receive(node.send(Finished(trial=0, at=1.0, ending="failed")))
    assert not Path(given.directory).exists()
    assert (place / "console.log").read_text() == "said"

    again = spec(project, 0, attempt=2, resume_from=f"{place}/last/checkpoint-8")
    home.send(again)
    start = node.receive(again).resume_from
    assert start is not None and not start.startswith(str(place))
    assert (Path(start) / "model").read_text() == "weights 8"
    node.close()
    home.close()
    assert list((tmp_path / "depot").iterdir()) == []


@pytest.mark.parametrize("path", ["pyproject.toml", "nowhere://bucket"])
def test_a_path_that_nothing_can_be_written_to_is_refused_before_anything_travels(project: Path, path: str) -> None:
    from sweepkit.backends.ray.files import DriverFiles

    with pytest.raises(InputError, match=r"^backend\.path: nothing can be written there: .*(pyproject|nowhere)"):
        DriverFiles(toy_study(project, backend={"type": "ray", "path": path}))


@pytest.mark.real
def test_a_killed_nodes_scratch_folder_goes_with_the_next_start_and_a_living_ones_stays(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sweepkit.backends.ray.files import NodeFiles

    disk = tmp_path / "disk"
    disk.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    study = toy_study(project, backend={"type": "ray", "path": f"{tmp_path}/depot"})
    NodeFiles(study)
    (left,) = disk.iterdir()
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    left = left.rename(disk / left.name.replace(str(os.getpid()), str(dead.pid)))
    planted = disk / f"sweepkit-nobodys@{left.name.rpartition('@')[2]}"
    planted.mkdir()
    living = [NodeFiles(study), NodeFiles(study)]
    assert not left.exists()
    made = {*disk.iterdir()} - {planted}
    assert len(made) == len(living) and {folder.stat().st_mode & 0o777 for folder in made} == {0o700}
    for node in living:
        node.close()
    assert [*disk.iterdir()] == [planted]
