"""Files that travel between machines: whole or not at all, and taken once."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("ray", reason="Ray Tune is missing; pip install 'sweepkit[ray]'")


@pytest.fixture(params=["file", "folder", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return {"file": f"file://{tmp_path}/depot", "folder": f"{tmp_path}/depot", "memory": "memory://depot"}[
        request.param
    ]


def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "here" / "checkpoint-4"
    (folder / "inner").mkdir(parents=True)
    (folder / "model").write_text("weights")
    (folder / "inner" / "state").write_text("momenta")
    return folder


def test_what_is_put_is_taken_whole_and_once(url: str, tmp_path: Path) -> None:
    from sweepkit.backends.ray.depot import Depot

    target = tmp_path / "there" / "arrived"
    Depot(url, "study").put("0001/last", checkpoint(tmp_path))
    assert Depot(url, "study").take("0001/last", target)
    found = {str(path.relative_to(target)): path.read_text() for path in target.rglob("*") if path.is_file()}
    assert found == {"model": "weights", "inner/state": "momenta"}
    assert not Depot(url, "study").take("0001/last", target)


def test_what_is_put_in_half_is_not_taken_and_cleared(tmp_path: Path) -> None:
    from sweepkit.backends.ray.depot import Depot

    depot = Depot(f"file://{tmp_path}/depot", "study")
    depot.put("0001/last", checkpoint(tmp_path))
    (tmp_path / "depot" / "study" / "0001" / "last.whole").unlink()
    assert not depot.take("0001/last", tmp_path / "arrived")
    depot.clear()
    assert list((tmp_path / "depot").iterdir()) == []
