"""By what a kind knows its data: the names that its columns usually bear, and what these hold."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Role:
    """What a column is called and holds to take a part in a kind's rows."""

    names: tuple[str, ...]
    """Usual names in small letters, in groups of equal rank ("label target"): two columns of one group are ambiguous."""
    holds: str
    """text, class, number, words, tags, labels, messages, image or answers; several where any of them will do."""
    by_value: bool = False
    """Whether its values suffice where no column bears a name."""
    optional: bool = False
    """Whether a row may have nothing there."""

    def depth(self, name: str) -> int | None:
        """Return the number of the first group that holds a column's name; None for none."""
        return next((depth for depth, group in enumerate(self.names) if plain(name) in group.split()), None)


def plain(name: str) -> str:
    """Return the name of a column as Role has it: the last key of a mapping's, in small letters and underscores.

    >>> plain(" Review Text "), plain("review.stars"), plain("unnamed: 0")
    ('review_text', 'stars', 'unnamed_0')
    """
    last = re.split(r"\.(?=[A-Za-z])", name.strip())[-1]
    return re.sub(r"[^a-z0-9]+", "_", last.lower()).strip("_")


Shape = Mapping[str, Role]
"""Option of the task, or column of its format → who takes that part. A kind's rows have one of several shapes."""

TEXT = Role(
    (
        "text sentence",
        "review comment message tweet sms post question utterance headline title content body document article "
        "description abstract review_text review_body comment_text full_text smiles",
    ),
    "text",
    by_value=True,
)
CLASS = Role(
    (
        "label labels target class",
        "category sentiment intent topic emotion polarity score rating stars is_duplicate "
        "genre rank grade quality gold answer outcome y",
        "label_id label_idx label_index class_id class_idx target_id category_id label_text label_name class_name",
    ),
    "class",
    by_value=True,
)
NUMBER = replace(
    CLASS, holds="number", names=(CLASS.names[0], f"{CLASS.names[1]} value price similarity relatedness_score expt")
)
PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "passage"),
    ("question", "context"),
    ("query", "passage"),
    ("query", "document"),
    ("text", "text_pair"),
    ("text1", "text2"),
    ("text_1", "text_2"),
    ("text_a", "text_b"),
    ("sentence_1", "sentence_2"),
    ("sent1", "sent2"),
    ("s1", "s2"),
    ("q1", "q2"),
    ("claim", "evidence"),
    ("sentence_a", "sentence_b"),
    ("sentence_0", "sentence_1"),
    ("string1", "string2"),
)
"""Names of two texts that belong together."""


def of_texts(label: Role) -> tuple[Shape, ...]:
    """Return the shapes of one text, or two, with a label."""
    pairs = ({"text": Role((a,), "text"), "text_pair": Role((b,), "text"), "label": label} for a, b in PAIRS)
    return (*pairs, {"text": TEXT, "label": label})


def of_columns(names: Mapping[str, str], holds: str = "text") -> Shape:
    """Return a shape of columns that hold the same: column → its other names, a group."""
    return {name: Role((name, other) if other else (name,), holds) for name, other in names.items()}


def usual(shapes: Sequence[Shape], part: str, names: Sequence[str]) -> str:
    """Return the column that most usually takes a part, such as ``label``; empty where none does."""
    roles = [shape[part] for shape in shapes if part in shape]
    found = [(depth, name) for role in roles for name in names if (depth := role.depth(name)) is not None]
    return min(found)[1] if found else ""
