"""Answers as spans of a context: windows of tokens for long contexts, and the best span over the windows of an example."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

OUTSIDE = -1
"""Where a token of the question, or a special one, begins and ends in the context."""


def windows(
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    contexts: Sequence[str],
    answers: Sequence[tuple[int, int] | None],
    **options: Any,
) -> dict[str, list[Any]]:
    """Return overlapping windows of questions with their contexts, and where in each the answer lies.

    ``answers`` are the first character of an answer and the one after its last; a window without the whole answer has the
    positions of the CLS token. ``options`` are ``max_length`` and ``stride``, the tokens that neighbours share. The columns
    are those of the model and ``start_positions``, ``end_positions``, ``example`` (the index of the question), ``cls``, and
    by token ``begins`` and ``ends``, characters of the context or OUTSIDE.
    """
    right = tokenizer.padding_side == "right"
    found = tokenizer(
        *((questions, contexts) if right else (contexts, questions)),
        truncation="only_second" if right else "only_first",
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        **options,
    )
    columns: dict[str, list[Any]] = {name: found[name] for name in tokenizer.model_input_names if name in found}
    columns["example"] = found["overflow_to_sample_mapping"]
    columns |= {name: [] for name in ("start_positions", "end_positions", "cls", "begins", "ends")}
    for number, example in enumerate(columns["example"]):
        inside = [each == (1 if right else 0) for each in found.sequence_ids(number)]
        offsets = zip(found["offset_mapping"][number], inside, strict=True)
        places = [place if kept else (OUTSIDE, OUTSIDE) for place, kept in offsets]
        ids = found["input_ids"][number]
        cls = ids.index(tokenizer.cls_token_id) if tokenizer.cls_token_id in ids else 0
        start, end = _positions(places, answers[example]) or (cls, cls)
        for name, value in (("start_positions", start), ("end_positions", end), ("cls", cls)):
            columns[name].append(value)
        columns["begins"].append([begin for begin, _ in places])
        columns["ends"].append([end for _, end in places])
    return columns


def _positions(places: Sequence[tuple[int, int]], answer: tuple[int, int] | None) -> tuple[int, int] | None:
    """Return the first and the last token of an answer; None where they are not all there."""
    context = [number for number, (begin, _) in enumerate(places) if begin != OUTSIDE]
    if answer is None or not context or not places[context[0]][0] <= answer[0] < answer[1] <= places[context[-1]][1]:
        return None
    start = max(number for number in context if places[number][0] <= answer[0])
    return start, min(number for number in context if places[number][1] >= answer[1])


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How the best span of an example is chosen; the names are those of transformers' run_qa."""

    n_best_size: int = 20
    """Starts and ends that are combined, the most likely ones of each window."""
    max_answer_length: int = 30
    """Maximum length of an answer in tokens."""
    null_score_diff_threshold: float | None = None
    """A question has no answer where the CLS token's score exceeds the best span's by more; None: each has one."""


def best_answers(scored: Iterable[tuple[Mapping[str, Any], Any, Any]], choice: Choice) -> dict[int, str]:
    """Return example → the text of its best span, empty for none.

    Each window (``example``, ``context``, ``cls``, ``begins``, ``ends``) comes with its start and its end logits.
    """
    best: dict[int, tuple[float, str]] = {}
    null: dict[int, float] = {}
    for window, starts, ends in scored:
        example = window["example"]
        if found := _best_span(window, starts, ends, choice):
            score, begin, end = found
            if example not in best or score > best[example][0]:
                best[example] = score, window["context"][begin:end]
        score = float(starts[window["cls"]] + ends[window["cls"]])
        null[example] = min(score, null.get(example, score))
    threshold = choice.null_score_diff_threshold
    return {
        example: ""
        if example not in best or (threshold is not None and score - best[example][0] > threshold)
        else best[example][1]
        for example, score in null.items()
    }


def _best_span(
    window: Mapping[str, Any], starts: NDArray[Any], ends: NDArray[Any], choice: Choice
) -> tuple[float, int, int] | None:
    """Return score, first character and the one after the last of a window's best span; None where there is none."""
    import numpy as np

    length = len(window["begins"])  # what follows pads the batch
    begins, stops = np.asarray(window["begins"]), np.asarray(window["ends"])
    first, last = (np.argsort(each[:length])[: -choice.n_best_size - 1 : -1] for each in (starts, ends))
    spans = last[None, :] - first[:, None] + 1
    allowed = (spans > 0) & (spans <= choice.max_answer_length)
    allowed &= (begins[first] != OUTSIDE)[:, None] & (begins[last] != OUTSIDE)[None, :]
    if not allowed.any():
        return None
    scores = np.where(allowed, starts[first][:, None] + ends[last][None, :], -np.inf)
    start, end = np.unravel_index(int(scores.argmax()), scores.shape)
    return float(scores[start, end]), int(begins[first[start]]), int(stops[last[end]])
