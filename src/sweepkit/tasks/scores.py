"""How well tags, texts and answers fit, by the libraries that their fields compare results with; and what follows from a loss.

Each function takes the references, then the predictions, one per example. Imports a library only to use it.
"""

from __future__ import annotations

import math
import re
import string
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from statistics import fmean
from typing import Any


def _entities(
    name: str, true: Iterable[list[str]], predicted: Iterable[list[str]], *, scheme: str | None = None, **options: Any
) -> float:
    """Return seqeval's score of the entities that tags such as B-PER and I-PER mark.

    By default it reads tags as conlleval does; with ``scheme`` (IOB2, IOBES, …) an entity counts only where its tags keep to
    that scheme.
    """
    import seqeval.metrics
    import seqeval.scheme

    if (
        scheme is None
    ):  # BILOU's last and unit tags, which seqeval knows in its strict mode only, are BIOES' end and single
        true, predicted = ([[_bioes(tag) for tag in row] for row in rows] for rows in (true, predicted))
    if name != "accuracy":
        strict = {} if scheme is None else {"mode": "strict", "scheme": getattr(seqeval.scheme, scheme)}
        options = {"zero_division": 0, **strict, **options}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* seems not to be NE tag", UserWarning)
        return float(getattr(seqeval.metrics, f"{name}_score")(list(true), list(predicted), **options))


def _bioes(tag: str) -> str:
    return {"L-": "E-", "U-": "S-"}.get(tag[:2], tag[:2]) + tag[2:]


entity_accuracy = partial(_entities, "accuracy")
"""Share of the words with the right tag."""
entity_f1 = partial(_entities, "f1")
entity_precision = partial(_entities, "precision")
entity_recall = partial(_entities, "recall")


def _rouge(
    name: str, true: Iterable[str], predicted: Iterable[str], *, use_stemmer: bool = True, **options: Any
) -> float:
    """Return the mean F-measure of rouge_score over the examples, from 0 to 1, with Porter's stemmer unless told otherwise.

    rougeLsum takes the lines of a text for its sentences.
    """
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([name], use_stemmer=use_stemmer, **options)
    return fmean(scorer.score(*pair)[name].fmeasure for pair in zip(true, predicted, strict=True))


rouge1 = partial(_rouge, "rouge1")
rouge2 = partial(_rouge, "rouge2")
rougeL = partial(_rouge, "rougeL")
rougeLsum = partial(_rouge, "rougeLsum")


def sacrebleu(true: Sequence[str], predicted: Sequence[str], **options: Any) -> float:
    """Return sacrebleu's BLEU of all examples together, from 0 to 100; ``options`` are those of its ``corpus_bleu``."""
    from sacrebleu import corpus_bleu

    return float(corpus_bleu(predicted, [true], **options).score)


def chrf(true: Sequence[str], predicted: Sequence[str], **options: Any) -> float:
    """Return sacrebleu's chrF of all examples together, from 0 to 100; ``word_order: 2`` makes it chrF++."""
    from sacrebleu import corpus_chrf

    return float(corpus_chrf(predicted, [true], **options).score)


def squad_exact_match(true: Iterable[list[str]], predicted: Iterable[str]) -> float:
    """Return the share of answers that equal a right one as SQuAD compares them; an answer without right ones is empty.

    >>> squad_exact_match([["The cat", "a dog"], []], ["cat!", ""])
    1.0
    """
    return _best_of(lambda one, other: float(one == other), true, predicted)


def squad_f1(true: Iterable[list[str]], predicted: Iterable[str]) -> float:
    """Return the mean over the answers of the best F1 of their words with a right answer's, as SQuAD defines it.

    >>> squad_f1([["the old cat"], []], ["a cat", "dog"])
    0.3333333333333333
    """

    def f1(one: list[str], other: list[str]) -> float:
        if not one or not other:
            return float(one == other)
        shared = (Counter(one) & Counter(other)).total()
        return 2 * shared / (len(one) + len(other))

    return _best_of(f1, true, predicted)


def _best_of(
    score: Callable[[list[str], list[str]], float], true: Iterable[list[str]], predicted: Iterable[str]
) -> float:
    pairs = [([_words(text) for text in right], _words(said)) for right, said in zip(true, predicted, strict=True)]
    return fmean(max(score(each, said) for each in (list(filter(None, right)) or [[]])) for right, said in pairs)


def _words(text: str) -> list[str]:
    """Return the words of an answer without case, punctuation and articles."""
    plain = "".join(character for character in text.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", plain).split()


def perplexity(loss: float) -> float:
    """Return the exponential of a mean loss per token.

    >>> perplexity(0.0), perplexity(1e6)
    (1.0, inf)
    """
    return math.exp(loss) if loss < 700 else math.inf  # above it the exponential overflows
