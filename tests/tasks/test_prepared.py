"""Prepared data: made once, found again, made anew when anything it depends on changes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import toys
from sweepkit.study import damage
from sweepkit.study.damage import note
from sweepkit.study.errors import DamagedFile, InputError
from sweepkit.study.study import TaskSpec
from sweepkit.tasks import by_value
from sweepkit.tasks.load import load_task
from sweepkit.tasks.prepared import about, digest, hold, load_prepared, prepare
from sweepkit.tasks.task import Task

OWN_TASK = """
from pathlib import Path
from datasets import Dataset, DatasetDict
from sweepkit.tasks.task import Task

class Counted(Task):
    rows: int = 3
    source: str = ""

    def data(self):
        with open(self.home / "calls", "a") as file:
            file.write("x")
        split = Dataset.from_dict({"x": list(range(self.rows)), "labels": [0.0] * self.rows})
        return DatasetDict({"train": split, "validation": split})
"""


def calls(home: Path) -> int:
    return len((home / "calls").read_text()) if (home / "calls").exists() else 0


def own(home: Path, **options: Any) -> Task:
    if not (home / "task.py").exists():
        (home / "task.py").write_text(OWN_TASK)
    return load_task(TaskSpec.model_validate({"path": "task.py:Counted", **options}), home)


def test_data_is_made_once_for_the_same_options(tmp_path: Path) -> None:
    first, second = (prepare(own(tmp_path), tmp_path / "data") for _ in range(2))
    assert (first, calls(tmp_path)) == (second, 1)


def test_other_options_are_prepared_apart(tmp_path: Path) -> None:
    first, second = prepare(own(tmp_path), tmp_path / "data"), prepare(own(tmp_path, rows=4), tmp_path / "data")
    assert (first != second, len(load_prepared(first)["train"]), len(load_prepared(second)["train"])) == (True, 3, 4)


@pytest.mark.real
def test_processes_that_come_at_once_prepare_once(tmp_path: Path) -> None:
    own(tmp_path)
    code = (
        "import sys; from pathlib import Path; from sweepkit.study.study import TaskSpec\n"
        "from sweepkit.tasks.load import load_task\n"
        "from sweepkit.tasks.prepared import prepare; home = Path(sys.argv[1])\n"
        "print(prepare(load_task(TaskSpec(path='task.py:Counted'), home), home / 'data'))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    places = {process.communicate(timeout=600)[0] for process in started}
    assert (len(places), calls(tmp_path)) == (1, 1)


def test_a_changed_input_file_is_prepared_again(tmp_path: Path, tiny_bert: Path) -> None:
    toys.tiny_csv(tmp_path / "m.csv", 20)
    spec = TaskSpec.model_validate(
        {"type": "text-classification", "model": str(tiny_bert), "data": {"path": "m.csv"}, "max_length": 16}
    )
    before = prepare(load_task(spec, tmp_path), tmp_path / "data")
    toys.tiny_csv(tmp_path / "m.csv", 30)
    after = prepare(load_task(spec, tmp_path), tmp_path / "data")
    assert (about(before)["rows"], about(after)["rows"]) == (
        {"train": 16, "validation": 4},
        {"train": 24, "validation": 6},
    )


def test_the_digest_follows_source_options_and_the_files_that_options_name(tmp_path: Path) -> None:
    seen = [digest(own(tmp_path))]
    seen.append(digest(own(tmp_path, rows=4)))
    (tmp_path / "rows.txt").write_text("one")
    seen.append(digest(own(tmp_path, source="rows.txt")))
    (tmp_path / "rows.txt").write_text("other")
    seen.append(digest(own(tmp_path, source="rows.txt")))
    (tmp_path / "helper.py").write_text("# beside the task")
    seen.append(digest(own(tmp_path, source="rows.txt")))
    assert len(set(seen)) == len(seen)
    assert digest(own(tmp_path, source="rows.txt")) == seen[-1]


def test_what_is_known_of_the_data_lies_beside_it(tmp_path: Path) -> None:
    place = prepare(own(tmp_path), tmp_path / "data")
    known = about(place)
    assert known.pop("task").endswith(":Counted")
    assert known.pop("classes") == {"train": [], "validation": []}, "the labels are no whole numbers"
    assert known.pop("deviations") == {"train": 0.0, "validation": 0.0}
    assert known == {"digest": place.name, "rows": {"train": 3, "validation": 3}, "columns": ["x", "labels"]}


@pytest.mark.parametrize("labels", ["[0, 1, 0, 2, 0]", "ClassLabel"])
def test_how_many_rows_each_class_has_is_known_of_the_data(tmp_path: Path, labels: str) -> None:
    text = OWN_TASK.replace("[0.0] * self.rows", "[0, 1, 0, 2, 0]")
    if labels == "ClassLabel":
        text = text.replace(
            "        return DatasetDict",
            "        split = split.class_encode_column('labels')\n        return DatasetDict",
        )
    (tmp_path / "task.py").write_text(text)
    place = prepare(own(tmp_path, rows=5), tmp_path / "data")
    assert about(place)["classes"] == {"train": [1, 1, 3], "validation": [1, 1, 3]}
    assert about(place)["deviations"] == {"train": None, "validation": None}, "the labels are no numbers"


def test_loading_is_quick_and_maps_memory(tmp_path: Path) -> None:
    place = prepare(own(tmp_path), tmp_path / "data")
    load_prepared(place)
    began = time.perf_counter()
    splits = load_prepared(place)
    assert time.perf_counter() - began < 0.2  # about 5 ms; the margin is for a busy machine
    assert [Path(file["filename"]).parent for file in splits["train"].cache_files] == [place / "train"]


def test_a_prepared_task_does_not_run_data_again(tmp_path: Path) -> None:
    task = own(tmp_path)
    prepare(task, tmp_path / "data")
    assert (len(task.splits["train"]), calls(tmp_path)) == (3, 1)


def test_the_steps_of_map_do_not_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    mapped = "return DatasetDict({'train': split, 'validation': split}).map(lambda row: {'y': row['x']})"
    source = OWN_TASK.replace("return DatasetDict(", f"{mapped}\n        return DatasetDict(", 1)
    assert mapped in source
    (tmp_path / "task.py").write_text(source)
    prepare(own(tmp_path), tmp_path / "data")
    assert sorted(path.suffix for path in (tmp_path / "data").iterdir()) == ["", ".lock"]
    assert not list((tmp_path / "temporary").iterdir())


def test_nothing_half_written_stays_when_data_raises(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(OWN_TASK.replace("with open", "raise OSError('disk on fire')\n        with open"))
    with pytest.raises(InputError, match=r"Counted.data\(\) raised OSError: disk on fire"):
        prepare(own(tmp_path), tmp_path / "data")
    assert [path.suffix for path in (tmp_path / "data").iterdir()] == [".lock"]


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        ("None", r"must return a datasets.DatasetDict, got NoneType"),
        ("DatasetDict({'train': split})", r"returned no validation split, only train"),
        ("DatasetDict({'train': split, 'validation': split.select([])})", r"returned no rows for validation"),
    ],
)
def test_data_that_returns_something_else_is_told_so(tmp_path: Path, returned: str, message: str) -> None:
    source = OWN_TASK.replace(
        "return DatasetDict({'train': split, 'validation': split})".replace("'", '"'), f"return {returned}"
    )
    (tmp_path / "task.py").write_text(source)
    with pytest.raises(InputError, match=message):
        prepare(own(tmp_path), tmp_path / "data")


def test_prepared_folders_can_be_read_by_others_as_the_umask_says(tmp_path: Path) -> None:
    place = prepare(own(tmp_path), tmp_path / "data")
    mask = os.umask(0o022)
    os.umask(mask)
    assert place.stat().st_mode & 0o777 == 0o777 & ~mask


CELLS = """
from sweepkit.tasks.task import Task
WORDS = {"a": 1}
def weight(word): return [WORDS[word] * 1 for _ in range(2)]
class Cell(Task):
    def data(self): return weight("a")
"""


def cell(text: str = CELLS) -> str:
    """Return the digest of a task whose code stands in no file, as in a notebook's cells."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(text, names)
    return digest(names["Cell"]())


@pytest.mark.parametrize(
    ("before", "after"),
    [("* 1", "* 2"), ("range(2)", "range(3)"), ('{"a": 1}', '{"a": 2}'), ('weight("a")', 'weight("b")')],
)
def test_the_digest_of_a_task_of_a_cell_follows_the_functions_and_values_it_uses(before: str, after: str) -> None:
    assert cell() != cell(CELLS.replace(before, after))


def test_the_digest_of_a_task_of_a_cell_stays_where_only_lines_move() -> None:
    assert cell() == cell("\n\n" + CELLS.replace("\ndef weight", "\n# nothing\ndef weight") + "unused = 3\n")


@pytest.mark.real
def test_the_digest_of_a_task_of_a_cell_is_the_same_in_another_process() -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(CELLS.replace('"a": 1', '"a": 1, "b": {"x", "y", "z"}, "c": Task'), names)
    code = (
        "import pickle, sys\nfrom sweepkit.tasks.prepared import digest\n"
        "print(digest(pickle.loads(sys.stdin.buffer.read())()))"
    )
    sent = subprocess.run(
        [sys.executable, "-c", code], input=by_value.dumps(names["Cell"]), capture_output=True, check=True
    )
    assert sent.stdout.decode().strip() == digest(names["Cell"]())


def test_held_data_is_opened_once_for_every_process_forked_later(tmp_path: Path) -> None:
    task, data = own(tmp_path), tmp_path / "data"
    hold(task, data)  # not prepared yet: nothing to open
    folder = prepare(task, data)
    hold(task, data)
    folder.rename(tmp_path / "moved")
    assert load_prepared(folder)["train"]["x"] == [0, 1, 2]


def test_every_byte_is_read_once_for_each_start_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, read = prepare(own(tmp_path), tmp_path / "data"), []
    sums = damage._sum
    monkeypatch.setattr(damage, "_sum", lambda path: read.append(path.name) or sums(path))
    monkeypatch.setattr(damage, "BOOT", tmp_path / "boot")
    damage.BOOT.write_text("one")
    assert damage.is_whole(place) and read, "nobody has looked since the machine started"
    count = len(read)
    assert damage.is_whole(place) and len(read) == count
    arrow = next((place / "train").glob("*.arrow"))
    before, content = arrow.stat(), bytearray(arrow.read_bytes())
    content[len(content) // 2] ^= 1
    arrow.write_bytes(content)
    assert not damage.is_whole(place), "a file was written"
    os.utime(arrow, ns=(before.st_atime_ns, before.st_mtime_ns))
    damage.BOOT.write_text("two")
    assert not damage.is_whole(place), "the machine was started again"
    damage.BOOT.unlink()
    content[len(content) // 2] ^= 1
    arrow.write_bytes(content)
    assert damage.is_whole(place) and damage.is_whole(place), "no machine says when it was started"


def test_damaged_data_is_named_and_prepared_again_and_whole_data_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    note.cache_clear()
    data = tmp_path / "data"
    whole, broken = (prepare(own(tmp_path, rows=rows), data) for rows in (4, 5))
    arrow = next((broken / "train").glob("*.arrow"))
    content = bytearray(arrow.read_bytes())
    content[len(content) // 2] ^= 1
    arrow.write_bytes(content)
    files, made = {path.name for path in data.iterdir()}, calls(tmp_path)
    hold(own(tmp_path, rows=5), data)
    assert [len(load_prepared(prepare(own(tmp_path, rows=rows), data))["train"]) for rows in (4, 5)] == [4, 5]
    assert [record.getMessage() for record in caplog.records] == [
        f"{arrow} is not as it was written; the data is prepared again"
    ]
    assert {path.name for path in data.iterdir()} == files | {f"{broken.name}.torn"}
    assert calls(tmp_path) == made + 1
    shutil.rmtree(whole / "train")
    with pytest.raises(DamagedFile, match="remove the folder, and the data is prepared again"):
        load_prepared(whole)
