"""Checkpoints: what stays on disk of a study's checkpoints, and what a killed process leaves half-written."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweepkit.backends.checkpoints import Checkpoints
from sweepkit.study.damage import note, seal
from sweepkit.study.errors import StudyFailed
from sweepkit.study.paths import SEAL, Place

MODEL = 1000


def checkpoints(tmp_path: Path, **keys: object) -> Checkpoints:
    return Checkpoints(Place(tmp_path, tmp_path, "toy"), **{"limit_bytes": None, **keys})  # type: ignore[arg-type]


def write(tmp_path: Path, number: int, part: str, size: int = MODEL) -> Path:
    """Put a checkpoint of so many bytes into a trial's folder."""
    folder = tmp_path / "runs/toy/trials" / f"{number:04d}" / part
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"." * size)
    return folder


def test_a_trial_goes_on_from_the_newest_whole_checkpoint_whoever_heard_of_it(tmp_path: Path) -> None:
    for part in ("last/checkpoint-8", "last/checkpoint-12", "last.new/checkpoint-16"):
        write(tmp_path, 0, part)
    path, step = checkpoints(tmp_path).resumable(0)
    assert path is not None and (path.name, step) == ("checkpoint-12", 12)
    assert checkpoints(tmp_path).resumable(1) == (None, 0)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGE = {
    "a bit": flip,
    "gone": Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
    "cut": cut,
    "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "a tail of zeros": lambda file: file.write_bytes(file.read_bytes()[:-4] + bytes(4)),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
}


@pytest.mark.parametrize(
    ("name", "how"),
    [
        (name, how)
        for name in ("model.safetensors", "optimizer.pt", "trainer_state.json", SEAL)
        for how in DAMAGE
        if (name, how) != (SEAL, "a bit")  # of one of the others' checksums
    ],
)
def test_a_checkpoint_that_is_not_as_it_was_written_is_set_aside_and_named(
    tmp_path: Path, name: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    note.cache_clear()
    for step in (4, 8):
        folder = write(tmp_path, 0, f"last/checkpoint-{step}", size=200_000)
        (folder / "optimizer.pt").write_bytes(b"o" * 300_000)
        (folder / "trainer_state.json").write_text('{"global_step": 8}')
        seal(folder)
    there = checkpoints(tmp_path)
    assert there.resumable(0)[1] == 8
    DAMAGE[how](tmp_path / "runs/toy/trials/0000/last/checkpoint-8" / name)
    expected = 4 if name != SEAL or how != "gone" else 8
    for _ in range(2):
        path, step = there.resumable(0)
        assert path is not None and (path.name, step) == (f"checkpoint-{expected}", expected)
    if expected == 4:
        assert [record.getMessage().partition(" is not ")[0] for record in caplog.records] == [
            str(tmp_path / "runs/toy/trials/0000/last/checkpoint-8" / name)
        ]
        assert "trial 0 resumes from step 4" in caplog.text
        DAMAGE[how](path / name)
        assert there.resumable(0) == (None, 0) and "trial 0 starts over" in caplog.text
        there.end(0, keeps_best=False)
        assert not (tmp_path / "runs/toy/trials/0000/last").exists()


def test_a_trial_goes_on_from_what_another_wrote_once_on_disk_and_stays_when_that_goes(tmp_path: Path) -> None:
    donated = write(tmp_path, 0, "last/checkpoint-8") / "model.safetensors"
    write(tmp_path, 1, "last/checkpoint-8", size=1)
    there = checkpoints(tmp_path)
    for _ in range(2):
        there.adopt(1, 0)
        path, step = there.resumable(1)
        assert path is not None and step == 8
        assert [each.name for each in path.parent.iterdir()] == [path.name]
        assert (path / "model.safetensors").samefile(donated)
    there.end(0, keeps_best=False)
    assert (path / "model.safetensors").stat().st_size == MODEL


def test_a_damaged_checkpoint_is_not_handed_over(tmp_path: Path) -> None:
    donated, own = (write(tmp_path, number, "last/checkpoint-8") for number in (0, 1))
    seal(donated)
    flip(donated / "model.safetensors")
    there = checkpoints(tmp_path)
    with pytest.raises(StudyFailed, match=r"^trial 0 has no checkpoint that trial 1 could continue from; run the same"):
        there.adopt(1, 0)
    assert there.resumable(1) == (own, 8)


@pytest.mark.parametrize("part", ["last.new", "last"])
def test_a_takeover_that_was_cut_off_is_whole_when_it_is_done_again(tmp_path: Path, part: str) -> None:
    write(tmp_path, 0, "last/checkpoint-8")
    write(tmp_path, 1, f"{part}/from-0-checkpoint-8", size=MODEL if part == "last" else 1)
    write(tmp_path, 1, "last/checkpoint-8", size=1)
    there = checkpoints(tmp_path)
    there.adopt(1, 0)
    path, _ = there.resumable(1)
    assert path is not None and (path / "model.safetensors").stat().st_size == MODEL
    assert [each.name for each in path.parent.iterdir()] == ["from-0-checkpoint-8"]


def test_a_trial_that_took_over_goes_on_from_what_it_writes_itself_later(tmp_path: Path) -> None:
    write(tmp_path, 0, "last/checkpoint-8")
    there = checkpoints(tmp_path)
    there.adopt(1, 0)
    own = write(tmp_path, 1, "last/checkpoint-12")
    assert there.resumable(1) == (own, 12)


def test_what_was_being_written_is_gone_and_what_it_was_to_replace_is_back(tmp_path: Path) -> None:
    for part in ("best.old", "best.new", "last.new/checkpoint-4"):
        write(tmp_path, 0, part)
    checkpoints(tmp_path).recover(0)
    assert [path.name for path in (tmp_path / "runs/toy/trials/0000").iterdir()] == ["best"]


def test_an_ended_trial_keeps_its_best_alone_and_only_if_it_may_be_ranked(tmp_path: Path) -> None:
    for number in (0, 1):
        for part in ("best", "last/checkpoint-4", "last.new/checkpoint-8"):
            write(tmp_path, number, part)
    there = checkpoints(tmp_path)
    there.end(0, keeps_best=True)
    there.end(1, keeps_best=False)
    left = {path.relative_to(tmp_path / "runs/toy/trials").as_posix() for path in tmp_path.glob("runs/toy/trials/*/*")}
    assert left == {"0000/best"}


def test_beyond_the_best_k_checkpoints_go(tmp_path: Path) -> None:
    for number in range(5):
        write(tmp_path, number, "best")
    assert checkpoints(tmp_path).surplus([4, 2, 0, 1, 3], 3) == [1, 3]


@pytest.mark.parametrize(("limit", "going"), [(3 * MODEL, []), (2.5 * MODEL, [1]), (0, [1, 0])])
def test_over_the_limit_the_worst_goes_first_and_the_best_never(tmp_path: Path, limit: float, going: list[int]) -> None:
    for number in range(3):
        write(tmp_path, number, "best")
    assert checkpoints(tmp_path, limit_bytes=limit).surplus([2, 0, 1], 3) == going


def test_room_is_made_before_a_trial_writes(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path, number, "best")
    there = checkpoints(tmp_path, limit_bytes=6 * MODEL, model_bytes=MODEL)
    assert there.before_writing(3, [2, 0, 1], 3) == ([1], True), (
        "a model and, three times its size, what resuming needs"
    )


def test_where_there_is_no_room_to_resume_the_best_is_still_written(tmp_path: Path) -> None:
    write(tmp_path, 0, "best")
    there = checkpoints(tmp_path, limit_bytes=2 * MODEL, model_bytes=MODEL)
    assert there.before_writing(1, [0], 3) == ([], False)


@pytest.mark.parametrize("stored", [True, False], ids=["MLflow's model", "anything else"])
@pytest.mark.parametrize("inside", [True, False], ids=["inside the project", "outside"])
def test_only_what_mlflow_stored_in_the_project_goes_through_a_link(tmp_path: Path, stored: bool, inside: bool) -> None:
    project = tmp_path / "project"
    target = (project if inside else tmp_path) / "kept" / "artifacts" / "model"
    target.mkdir(parents=True)
    (target.parent / ("MLmodel" if stored else "notes.txt")).write_text("")
    folder = project / "runs/toy/trials/0000"
    folder.mkdir(parents=True)
    (folder / "best").symlink_to(target)
    checkpoints(project).end(0, keeps_best=False)
    assert not (folder / "best").is_symlink(), "the link goes"
    assert target.exists() is not (stored and inside)
