"""Extractive question answering: the answer is a span of the context, or there is none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from sweepkit.study.errors import InputError
from sweepkit.tasks.built_in import TokenizedTask, Without
from sweepkit.tasks.data import Column, read
from sweepkit.tasks.metrics import Decided
from sweepkit.tasks.rows import as_text, choose, complete
from sweepkit.tasks.shapes import Role
from sweepkit.tasks.spans import Choice, best_answers, windows
from sweepkit.tasks.splitting import with_validation
from sweepkit.tasks.task import ALWAYS_REPORTED, Template

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict
    from transformers import EvalPrediction, PreTrainedModel, Trainer


_ASKED = {"question": Role(("question", "query"), "text"), "context": Role(("context", "passage paragraph"), "text")}
_START = Role(("answer_start", "start"), "number class", optional=True)


class QuestionAnswering(TokenizedTask):
    """The span of a context that answers a question, as in SQuAD; a question may have no answer.

    Long contexts are read in overlapping windows, and an example's answer is the best span of all of them.
    """

    template: ClassVar[Template | None] = Template(
        metric="f1",
        data="columns question, context and answers, as in SQuAD",
        shapes=(
            {**_ASKED, "answers": Role(("answers", "answer"), "answers", optional=True)},
            {**_ASKED, "answers": Role(("answers", "answer"), "text", optional=True), "answer_start": _START},
        ),
    )
    pipeline_tag: ClassVar[str | None] = "question-answering"
    peft_task_type: ClassVar[str | None] = "QUESTION_ANS"
    compares: ClassVar[tuple[str, ...]] = ("answers",)

    metrics: list[str | dict[str, dict[str, Any]]] = ["exact_match", "f1"]
    """Metrics by name, as SQuAD defines them (without case, punctuation and articles; the best of several answers), here
    from 0 to 1."""
    question: Annotated[str, Column()] = "question"
    """Column with the question."""
    context: Annotated[str, Column()] = "context"
    """Column with the text that holds the answer."""
    answers: Annotated[str, Column(label=True)] = "answers"
    """Column with SQuAD's answers (lists ``text`` and ``answer_start``), or with the text of one. None: no answer."""
    answer_start: Annotated[str | None, Column(label=True)] = None
    """Column with the answer's first character in the context, from 0, where ``answers`` holds a text (csv)."""
    max_length: int | None = Field(default=None, ge=8)
    """Maximum length of a window in tokens, question included; by default 384, or the model's own limit."""
    doc_stride: int | None = Field(default=None, ge=1)
    """Tokens of the context that neighbouring windows share; by default 128, at most a third of ``max_length``."""
    n_best_size: int = Field(default=20, ge=1)
    """Starts and ends that are combined into spans, the most likely ones of each window."""
    max_answer_length: int = Field(default=30, ge=1)
    """Maximum length of a predicted answer in tokens."""
    null_score_diff_threshold: float = 0.0
    """Where the data has questions without an answer: "no answer" must score higher than the best span by more than this."""

    def data(self) -> DatasetDict:
        """Return the windows; those for evaluation carry their ``context`` and a number (``row``) over all splits."""
        from datasets import DatasetDict, List, Value

        rows = self.rows()
        rows = complete(rows, label=None, drop_duplicates=self.source.drop_duplicates, optional=("answers", "starts"))
        found = {split: list(_answers(part, split)) for split, part in rows.items()}
        if not any(found["train"]):
            raise InputError("task.answers: no question of train has an answer")
        if "test" in rows and not any(found["test"]) and self.source._test is None:
            del rows["test"]  # its answers are kept secret
        for split, part in rows.items():
            self._check_questions(part, split)
            texts = [[text for text, _ in each] for each in found[split]]
            plain = part.select_columns(["question", "context"])
            plain = plain.add_column("texts", texts, feature=List(Value("string")))
            rows[split] = plain.add_column("start", [each[0][1] if each else -1 for each in found[split]])
        rows = self._limited(with_validation(rows, self.validation, self.split_seed))
        null = any(not each for part in rows.values() for each in part["texts"])
        parts, examples, count = DatasetDict(), 0, 0
        for split, part in rows.items():
            options = {"split": split, "base": examples}
            part = part.map(
                self._windows, batched=True, with_indices=True, remove_columns=part.column_names, fn_kwargs=options
            )
            examples += len(rows[split])
            if split != "train":
                part = part.add_column("row", list(range(count, count + len(part))))
                part = part.add_column("unanswerable", [null] * len(part))
                count += len(part)
            parts[split] = part
        return parts

    def rows(self) -> DatasetDict:
        """Return rows with ``question``, ``context``, ``answers`` and perhaps ``starts``; override it for other formats."""
        used = {"question": self.question, "context": self.context}
        labels = {"answers": self.answers, **({} if self.answer_start is None else {"starts": self.answer_start})}
        rows = read(self.source, self.home, [*used.values(), *labels.values()])
        return as_text(choose(rows, {**used, **labels}, tuple(labels)), used)

    def data_collator(self) -> Any:
        """Return a collator that pads each batch to its longest window."""
        from transformers import DataCollatorWithPadding

        aside = ("example", "cls", "begins", "ends", "texts", "context", "unanswerable")
        return Without(aside, DataCollatorWithPadding(self.processing_class()))

    def data_notes(self) -> list[str]:
        """Return how many windows there are, and how many questions have no answer, or none that fits into a window."""
        notes = []
        for split, part in self.splits.items():
            fits: dict[int, bool] = {}
            empty = {}
            for example, texts, start, cls in zip(
                *(part[name] for name in ("example", "texts", "start_positions", "cls")), strict=True
            ):
                fits[example] = fits.get(example, False) or start != cls
                empty[example] = not texts
            found = [
                f"{len(fits)} questions of {split} are read in {len(part)} windows of at most {self._lengths()[0]} tokens"
            ]
            if count := sum(empty.values()):
                found.append(f"{count} have no answer")
            if count := sum(not fits[example] for example in fits if not empty[example]):
                found.append(f"the answers of {count} fit into no window, so they are learned as unanswerable")
            notes.append("; ".join(found))
        return notes

    def model_init(self, **config: Any) -> PreTrainedModel:
        """Return the model with a head for starts and ends: the checkpoint's own where it has one."""
        from transformers import AutoModelForQuestionAnswering

        return self._model(AutoModelForQuestionAnswering, {"num_labels": 2, **config})

    def trainer(self, **kwargs: Any) -> Trainer:
        """Return a Trainer that tells :meth:`decide` which windows its predictions are of."""
        from transformers import Trainer

        class _Trainer(Trainer):
            def __init__(self, **kwargs: Any) -> None:
                super().__init__(**kwargs)
                self.label_names = [*self.label_names, "row"]

            def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
                """Return the loss; ``row`` is none of the model's inputs."""
                return super().compute_loss(model, {k: v for k, v in inputs.items() if k != "row"}, *args, **kwargs)

        return _Trainer(**kwargs)

    def reported(self) -> frozenset[str] | None:
        """Return the loss and the metrics; None where one of ``metrics`` is not bundled."""
        keys = self._keys()
        return None if keys is None else ALWAYS_REPORTED | keys

    def decide(self, prediction: EvalPrediction) -> Decided:
        """Return the text of each example's best span, and its answers."""
        scored = {number: (starts, ends) for number, starts, ends in _numbered(prediction)}
        placed: dict[int, dict[str, Any]] = {}
        first = 0
        for part in (part for split, part in self.splits.items() if split != "train"):
            rows = [number - first for number in scored if first <= number < first + len(part)]
            placed |= {window["row"]: window for window in part.select(rows)}
            first += len(part)
        null = next(iter(placed.values()))["unanswerable"]
        choice = Choice(
            n_best_size=self.n_best_size,
            max_answer_length=self.max_answer_length,
            null_score_diff_threshold=self.null_score_diff_threshold if null else None,
        )
        found = best_answers(((placed[number], *logits) for number, logits in scored.items()), choice)
        right = {window["example"]: window["texts"] for window in placed.values()}
        rule = f"best of {self.n_best_size} starts and ends, at most {self.max_answer_length} tokens"
        rule += f", none where that scores higher by {self.null_score_diff_threshold:g}" if null else ""
        return Decided(rule, [right[example] for example in found], {"answers": list(found.values())})

    def any_label(self, label: Any, row: Mapping[str, Any]) -> Any:
        """Return no answer."""
        return (
            {"text": [], "answer_start": []} if isinstance(label, Mapping) else [] if isinstance(label, list) else None
        )

    def _lengths(self) -> tuple[int, int]:
        """Return the length of a window and what neighbours share."""
        length = self._within("max_length", usual=384) or 384
        return length, self.doc_stride or min(128, length // 3)

    def _check_questions(self, part: Dataset, split: str) -> None:
        """Raise InputError for a blank question or context, and for a question that leaves no room for the context."""
        tokenizer, (length, stride) = self.processing_class(), self._lengths()
        if not tokenizer.is_fast:
            raise InputError(
                f"task.model: {type(tokenizer).__name__} cannot place tokens in a text; choose another model"
            )
        special = tokenizer.num_special_tokens_to_add(pair=True)
        questions = [str(text).lstrip() for text in part["question"]]
        for name in ("question", "context"):
            if blank := [number for number, text in enumerate(part[name], 1) if not str(text).strip()]:
                raise InputError(f"task.{name}: row {blank[0]} of {split} is blank; complete or remove such rows")
        for number, ids in enumerate(tokenizer(questions, add_special_tokens=False, verbose=False)["input_ids"], 1):
            if len(ids) + special + stride >= length:
                raise InputError(
                    f"task.max_length: the question in row {number} of {split} has {len(ids)} tokens; with doc_stride "
                    f"{stride}, a window of {length} leaves no room for new words of the context"
                )

    def _windows(self, batch: dict[str, list[Any]], indices: list[int], split: str, base: int) -> dict[str, list[Any]]:
        """Return the windows of a batch of examples, whose first one has the number ``base`` over all splits."""
        tokenizer, (length, stride) = self.processing_class(), self._lengths()
        questions = [str(text).lstrip() for text in batch["question"]]
        spans = [
            (start, start + len(texts[0])) if texts else None
            for start, texts in zip(batch["start"], batch["texts"], strict=True)
        ]
        found = windows(tokenizer, questions, batch["context"], spans, max_length=length, stride=stride)
        places = found["example"]
        found["texts"] = [batch["texts"][place] for place in places]
        found["example"] = [base + indices[place] for place in places]
        if split == "train":
            return {name: column for name, column in found.items() if name not in ("begins", "ends")}
        return {**found, "context": [batch["context"][place] for place in places]}


def _numbered(prediction: EvalPrediction) -> Iterator[tuple[int, Any, Any]]:
    """Yield the number of each window with its start and its end logits."""
    outputs: Any = prediction.predictions
    labels: Any = prediction.label_ids
    for both, true in zip(outputs, labels, strict=True) if isinstance(labels, list) else [(outputs, labels)]:
        yield from zip(map(int, true[-1]), both[0], both[1], strict=True)


def _answers(part: Dataset, split: str) -> Iterator[list[tuple[str, int]]]:
    """Yield the answers of each row with their first characters. Raises InputError where one is not in its context."""
    starts = part["starts"] if "starts" in part.column_names else [None] * len(part)
    for number, (found, start, context) in enumerate(zip(part["answers"], starts, part["context"], strict=True), 1):
        place = f"task.answers: row {number} of {split}"
        try:
            answers = [(str(text), int(begin)) for text, begin in _pairs(found, start)]
        except (TypeError, ValueError, LookupError) as error:
            raise InputError(
                f"{place} holds {found!r:.80}; needed are lists text and answer_start, or a text and task.answer_start"
            ) from error
        for text, begin in answers:
            if not text or begin < 0 or context[begin : begin + len(text)] != text:
                there = context[max(begin, 0) : max(begin, 0) + len(text)]
                raise InputError(
                    f"{place} says that {text!r:.60} begins at character {begin} (from 0) of the context, where {there!r:.60} "
                    "stands; correct or remove such rows"
                )
        yield answers


def _pairs(found: Any, start: Any) -> list[tuple[Any, Any]]:
    """Return (text, first character) of SQuAD's answers, of a list of single ones, or of a text."""
    if found is None or found == "":
        return []
    if isinstance(found, str):
        return [(found, start)]
    if isinstance(found, Mapping):
        texts, begins = found["text"], found["answer_start"]
        single = isinstance(texts, str)
        return [(texts, begins)] if single else list(zip(texts or [], begins or [], strict=True))
    return [(each["text"], each["answer_start"]) for each in found]
