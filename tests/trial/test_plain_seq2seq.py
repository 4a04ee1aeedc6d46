"""Generated texts: the values are those of run_summarization's steps, rouge_score's and sacrebleu's."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sacrebleu
from datasets import Dataset
from rouge_score.rouge_scorer import RougeScorer
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    EvalPrediction,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

import toys
from by_hand import plain, reported
from making import toy_study
from sweepkit.check import find_problems
from sweepkit.check.fields.tasks import task_facts
from sweepkit.study.errors import InputError
from sweepkit.study.study import TaskSpec
from sweepkit.tasks import metrics
from sweepkit.tasks.load import load_task
from sweepkit.tasks.seq2seq import decide_texts
from sweepkit.tasks.task import Task

pytestmark = pytest.mark.real
ROUGE = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
NAMES = [*ROUGE, "sacrebleu", "chrf"]


@pytest.fixture(scope="module")
def tiny_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toys.tiny_t5(tmp_path_factory.mktemp("models") / "tiny-t5")


def rows() -> dict[str, list[dict[str, str]]]:
    answers = {"ham": "see you tomorrow now thanks", "spam": "please call now to claim the prize"}
    return {
        split: [{"source": text, "target": answers[label]} for text, label in toys.messages(count, seed)]
        for seed, (split, count) in enumerate({"train": 64, "validation": 16}.items())
    }


def by_libraries(true: list[str], found: list[str]) -> dict[str, float]:
    """The values of rouge_score and sacrebleu."""
    scorer = RougeScorer(ROUGE, use_stemmer=True)
    each = [scorer.score(*pair) for pair in zip(true, found, strict=True)]
    return {
        **{name: fmean(score[name].fmeasure for score in each) for name in ROUGE},
        "sacrebleu": sacrebleu.corpus_bleu(found, [true]).score,
        "chrf": sacrebleu.corpus_chrf(found, [true]).score,
    }


@pytest.mark.parametrize("beams", [None, 3])
def test_texts_are_generated_and_scored_as_by_run_summarization(
    beams: int | None, project: Path, tiny_t5: Path
) -> None:
    found = rows()
    for split, part in found.items():
        pd.DataFrame(part).to_csv(project / f"{split}.csv", index=False)
    data = {split: f"{split}.csv" for split in found}
    task = {
        "type": "seq2seq",
        "model": str(tiny_t5),
        "data": data,
        "metrics": NAMES,
        "max_target_length": 12,
        "prefix": "the ",
    }
    training = {"num_train_epochs": 2, "per_device_train_batch_size": 4}
    training |= {} if beams is None else {"generation_num_beams": beams, "generation_max_length": 7}
    mine = reported(project, task, **training)
    tokenizer = AutoTokenizer.from_pretrained(tiny_t5)

    def tokenized(row: dict[str, str]) -> dict[str, Any]:
        labels = tokenizer(text_target=row["target"], max_length=12, truncation=True)["input_ids"]
        return {**tokenizer("the " + row["source"], max_length=64, truncation=True), "labels": labels}

    splits = {split: Dataset.from_list(list(map(tokenized, part))) for split, part in found.items()}
    model = AutoModelForSeq2SeqLM.from_pretrained(tiny_t5)

    def scores(prediction: EvalPrediction) -> dict[str, float]:
        predictions = np.where(prediction.predictions != -100, prediction.predictions, tokenizer.pad_token_id)
        labels = np.where(prediction.label_ids != -100, prediction.label_ids, tokenizer.pad_token_id)
        decoded = [tokenizer.batch_decode(ids, skip_special_tokens=True) for ids in (labels, predictions)]
        return by_libraries(*([text.strip() for text in texts] for texts in decoded))

    more = {"generation_max_length": 12, "predict_with_generate": True, **training}
    wanted = plain(
        project,
        lambda: AutoModelForSeq2SeqLM.from_pretrained(tiny_t5),
        splits,
        DataCollatorForSeq2Seq(tokenizer, model=model),
        scores,
        trainer=Seq2SeqTrainer,
        arguments=Seq2SeqTrainingArguments,
        **more,
    )
    for name in ("loss", *NAMES):
        assert mine[f"eval_{name}"] == pytest.approx(wanted[f"eval_{name}"], abs=1e-6), name
    assert mine["eval_perplexity"] == pytest.approx(np.exp(wanted["eval_loss"]))
    assert mine["eval_rouge1"] > 0.1


def texts_task(home: Path, model: Path, file: str, **spec: Any) -> Task:
    return load_task(TaskSpec(type="seq2seq", model=str(model), data={"path": file}, **spec), home)


def test_translations_lie_in_mappings(tmp_path: Path, tiny_t5: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"translation": {"en": "free prize", "de": "win cash"}}\n' * 4)
    task = texts_task(tmp_path, tiny_t5, "m.jsonl", source="translation.en", target="translation.de")
    tokenizer, row = task.processing_class(), task.data()["train"][0]
    assert tokenizer is not None
    assert (tokenizer.decode(row["input_ids"]), tokenizer.decode(row["labels"])) == ("free prize </s>", "win cash </s>")
    with pytest.raises(
        InputError, match=r"train has no column translation.fr, target; its columns are translation.en, translation.de"
    ):
        texts_task(tmp_path, tiny_t5, "m.jsonl", source="translation.fr").data()


def test_what_is_cut_and_what_the_tokenizer_does_not_know_is_noted(tmp_path: Path, tiny_t5: Path) -> None:
    (tmp_path / "m.csv").write_text("source,target\n" + "free prize,win cash now today please\nfree,Geld\n" * 5)
    task = texts_task(tmp_path, tiny_t5, "m.csv", max_target_length=4, max_length=3, split_seed=1)
    notes = " ".join(task.data_notes())
    assert "targets of train fill max_target_length (4 tokens); longer ones are cut" in notes
    assert "sources of train fill max_length (3 tokens)" in notes
    assert "targets of train contain characters that the tokenizer does not know" in notes


def test_targets_that_rouge_cannot_compare_are_noted(tmp_path: Path, tiny_t5: Path) -> None:
    (tmp_path / "m.csv").write_text("source,target\n" + "free prize,Деньги\n" * 20)
    [*_, note] = texts_task(tmp_path, tiny_t5, "m.csv").data_notes()
    assert note == (
        "rouge compares words of a to z and 0 to 9, which 4 of 4 targets of validation lack; "
        "sacrebleu and chrf read every script"
    )
    assert "rouge" not in " ".join(texts_task(tmp_path, tiny_t5, "m.csv", metrics=["chrf"]).data_notes())


@pytest.mark.parametrize(
    ("content", "spec", "message"),
    [
        (
            "source,targets\na,b\n",
            {},
            "train has no column target; its columns are source, targets; did you mean targets",
        ),
        ("source,target\na,b\nc,\n", {}, "1 of 2 rows of train have no target, the first is row 2"),
        ('source,target\na,b\nc," "\n', {}, "task.target: row 2 of train has a blank target"),
        (
            "source,target\na,b\nc,d\n",
            {"source_language": "de"},
            "task.source_language: .* has no languages; see task.prefix",
        ),
        (
            "source,target\na,b\nc,d\n",
            {"max_target_length": 65},
            "task.max_target_length: the model reads at most 64 tokens, got 65",
        ),
    ],
)
def test_what_cannot_be_rewritten_is_refused(
    content: str, spec: dict[str, Any], message: str, tmp_path: Path, tiny_t5: Path
) -> None:
    (tmp_path / "m.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        texts_task(tmp_path, tiny_t5, "m.csv", **spec).data()


def test_languages_are_set_in_the_tokenizer_and_begin_what_is_generated(tmp_path: Path) -> None:
    from transformers import M2M100Config, NllbTokenizer

    words = {word: number for number, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", *"▁fre"])}
    NllbTokenizer(vocab=words, merges=[]).save_pretrained(tmp_path / "nllb")
    small = {
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
    }
    small |= {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "vocab_size": 400, "max_position_embeddings": 64}
    M2M100Config(**small).save_pretrained(tmp_path / "nllb")
    (tmp_path / "m.csv").write_text("source,target\n" + "free,free\n" * 8)
    model = {"config": {"model_type": "m2m_100", **small}, "tokenizer": "nllb"}
    spec = {"model": model, "data": {"path": "m.csv"}, "source_language": "deu_Latn"}
    task = load_task(TaskSpec(type="seq2seq", target_language="fra_Latn", **spec), tmp_path)
    tokenizer, row = task.processing_class(), task.data()["train"][0]
    assert tokenizer is not None
    german, french = tokenizer.convert_tokens_to_ids(["deu_Latn", "fra_Latn"])
    assert (row["input_ids"][0], row["labels"][0]) == (german, french)
    assert task.model_init().generation_config.forced_bos_token_id == french
    with pytest.raises(InputError, match=r"task.target_language: NllbTokenizer has no language xx"):
        load_task(TaskSpec(type="seq2seq", target_language="xx", **spec), tmp_path).data()


def test_a_model_from_a_configuration_begins_with_padding_and_one_without_a_decoder_is_refused(
    project: Path, tiny_t5: Path, tiny_bert: Path
) -> None:
    pd.DataFrame(rows()["train"]).to_csv(project / "m.csv", index=False)
    small = {"d_model": 16, "num_layers": 1, "num_heads": 2, "d_kv": 8, "d_ff": 16, "vocab_size": 100}
    spec: dict[str, Any] = {"type": "seq2seq", "data": {"path": "m.csv"}, "max_target_length": 6}
    model = {"config": {"model_type": "t5", **small}, "tokenizer": str(tiny_t5)}
    assert reported(project, {**spec, "model": model}, num_train_epochs=1)["eval_loss"] > 0
    with pytest.raises(InputError, match=r"task.model: bert has no decoder .* T5, BART or Marian"):
        load_task(TaskSpec(model=str(tiny_bert), **spec), project).model_init()


class Answers(Task):
    """A Task of one's own gets the metrics of texts by saying what they compare."""

    metrics: list[str | dict[str, dict[str, Any]]] = [*NAMES]
    model: str

    def decide(self, prediction: EvalPrediction) -> metrics.Decided:
        return decide_texts(prediction.predictions, prediction.label_ids, AutoTokenizer.from_pretrained(self.model))


def test_a_task_of_ones_own_compares_texts(tiny_t5: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_t5)
    true, said = ["free prize now", "meet you today"], ["free cash now please", "you today"]
    labels, outputs = (tokenizer(texts, padding=True, return_tensors="np")["input_ids"] for texts in (true, said))
    labels = np.where(labels == 0, -100, labels)
    found = Answers(model=str(tiny_t5)).compute_metrics(EvalPrediction(outputs, labels))
    assert found == pytest.approx(by_libraries(true, said))
    assert found["rouge1"] > 0.5


def test_the_check_knows_generation_and_its_metrics(
    project: Path, tiny_t5: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "m.jsonl").write_text(json.dumps({"source": "free", "target": "win"}) + "\n")
    spec = {"type": "seq2seq", "path": None, "model": str(tiny_t5), "data": {"path": "m.jsonl"}}
    goal = {"metric": "eval_rougeL", "direction": "maximize"}
    space = {"generation_num_beams": {"choices": [1, 4]}, "task.max_target_length": {"choices": [8, 16]}}
    assert find_problems(toy_study(project, task=spec, objective=goal, space=space)) == []
    facts = task_facts(TaskSpec(type="seq2seq"), project)
    assert (facts.reported({}, project) or set()) >= {"eval_rougeL", "eval_perplexity", "eval_loss"}
    wrong = toy_study(project, task={**spec, "metrics": ["rougeL", "accuracy"], "target": "targte"}, objective=goal)
    assert [str(problem) for problem in find_problems(wrong)] == [
        "task.target: m.jsonl has no column targte; its columns are source, target; did you mean target?",
        "task.metrics[1]: compares classes or tags; those of seq2seq are rouge1, rouge2, rougeL, rougeLsum, sacrebleu, chrf, "
        "perplexity",
    ]
    monkeypatch.setattr(metrics, "package_folder", lambda name: None)
    [missing] = find_problems(toy_study(project, task={**spec, "metrics": ["rougeL"]}, objective=goal))
    assert str(missing) == (
        "task.metrics[0]: the metric rougeL needs an extra that is not installed: pip install 'sweepkit[metrics]'"
    )
