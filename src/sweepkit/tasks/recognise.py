"""Recognises which kind of task a table is for, and which of its columns take which part: by names, then by values.

An id, a date or a constant is no label, and where two columns or none would do, the error says what to type.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from sweepkit.study import words
from sweepkit.study.errors import InputError, nearest
from sweepkit.tasks.columns import ColumnsTask
from sweepkit.tasks.kinds import KINDS, kind_class
from sweepkit.tasks.shapes import CLASS, Role, Shape
from sweepkit.tasks.tables import LISTS, TableColumn, sure_column, table_column

if TYPE_CHECKING:
    from datasets import Dataset

_FLAGS = ("2 different values: 0, 1", "2 different values: 1, 0")
_UNNAMED = 10
_TEXT = frozenset({"text"})
_ASIDE = re.compile(
    "split|fold|subset|set|source|lang|language|url|link|author|user|username|date|time|timestamp|year|month|day|version|"
    "country|annotator|file|filename|path|domain|weight"
)
"""Names of what is known of a row; only a name or a person makes a label of it."""


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """What a table is for."""

    kind: str
    options: Mapping[str, Any]
    """Options of the task that name its columns."""
    taken: str
    """Which column is what, in words."""
    needed: Mapping[str, str] = field(default_factory=dict)
    """Role → its column, of those in which every row must have something."""
    about: Mapping[str, str] = field(default_factory=dict)
    """Option of the task → what its column holds, in words."""
    unused: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    """Kinds that the same columns would do for."""


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """How a shape fits a table: by role, the columns that could take it."""

    kind: str
    shape: Shape
    hits: Mapping[str, Sequence[TableColumn]]
    rank: int
    """How far down its roles' names the columns' are; 0 for the most usual."""

    @property
    def columns(self) -> dict[str, TableColumn]:
        return {role: hits[0] for role, hits in self.hits.items() if len(hits) == 1}

    @property
    def doubts(self) -> dict[str, Sequence[TableColumn]]:
        """The roles that several columns could take."""
        return {role: hits for role, hits in self.hits.items() if len(hits) > 1}

    @property
    def used(self) -> frozenset[str]:
        return frozenset(column.name for column in self.columns.values())

    @property
    def needed(self) -> dict[str, str]:
        """Role → its column, of those in which every row must have something."""
        columns = self.columns.items()
        return {role: each.name for role, each in columns if not (self.shape[role].optional or self._splits(role))}

    @property
    def options(self) -> dict[str, Any]:
        names: dict[str, Any] = {role: column.name for role, column in self.columns.items()}
        if issubclass(kind_class(self.kind), ColumnsTask):
            renamed = {role: name for role, name in names.items() if role != name}
            return {"columns": renamed} if renamed else {}
        separators = {f"{role}_separator": each.separator for role, each in self.columns.items() if self._splits(role)}
        if pair := names.pop("text_pair", None):
            names = {**names, "text": [names["text"], pair]}
        return {**names, **separators}

    def _splits(self, role: str) -> bool:
        return self.columns[role].separator is not None and self.shape[role].holds == "labels"


def recognise(rows: Dataset, *, kind: str = "", chosen: Mapping[str, Any] | None = None, again: str = "") -> Recognised:
    """Return what the rows are for. Raises InputError where nothing fits, or more than one column would do.

    ``kind`` and ``chosen``, options of the task that name columns, are what a person said; ``again`` is the command to which
    an error adds what is missing.
    """
    if any(isinstance(kind, dict) and "answer_start" not in kind for kind in rows.features.values()):
        rows = rows.flatten()  # a column for each key of a mapping
    table = [table_column(name, rows, named=name in _names_in(chosen or {})) for name in rows.column_names]
    forced = _forced(chosen or {}, table)
    kinds = [kind] if kind else list(KINDS)
    fits = [fit for each in kinds for shape in shapes(each) if (fit := _fit(each, shape, table, forced, bool(kind)))]
    if not fits:
        raise InputError(_nothing(table, kinds, again))
    first = _first(fits, table, again)
    about = {role: column.about for role, column in first.columns.items()}
    parts = ", ".join(f"{column.name} as {role.replace('_', ' ')}" for role, column in first.columns.items())
    return Recognised(
        kind=first.kind,
        options=first.options,
        needed=first.needed,
        taken=f"{parts} ({list(about.values())[-1]})",
        about=about,
        unused=tuple(column.name for column in table if column.name not in first.used),
        others=() if kind else _others(first, fits, table),
    )


def _first(fits: Sequence[_Fit], table: Sequence[TableColumn], again: str) -> _Fit:
    """Return the first fit of the columns that fit best. Raises InputError where several columns would do."""
    best = _best(fits)
    if best[0].doubts or any(fit.used != best[0].used for fit in best):
        raise InputError(_doubtful(best, table, again))
    return next(fit for fit in fits if fit.used == best[0].used and not fit.doubts)


def _others(first: _Fit, fits: Sequence[_Fit], table: Sequence[TableColumn]) -> tuple[str, ...]:
    """Return the other kinds that the same columns would do for, also where a person would have to say so."""
    loose = [_fit(each, shape, table, first.columns, said=True) for each in KINDS for shape in shapes(each)]
    same = [fit for fit in (*fits, *loose) if fit and fit.used == first.used and not fit.doubts]
    return tuple(dict.fromkeys(fit.kind for fit in same if fit.kind != first.kind))


def naming(kind: str = "") -> list[str]:
    """Return the options that name columns, of a kind or of all."""
    kinds = [kind] if kind else KINDS
    return [*dict.fromkeys(("columns", *(role for each in kinds for shape in shapes(each) for role in shape)))]


def _best(fits: Sequence[_Fit]) -> list[_Fit]:
    """Return the fits with the most columns, and among these the most usual names."""
    most = max(len(fit.hits) for fit in fits)
    fits = [fit for fit in fits if len(fit.hits) == most]
    return [fit for fit in fits if fit.rank == min(fit.rank for fit in fits)]


def shapes(kind: str) -> tuple[Shape, ...]:
    """Return the columns that a kind trains on, each way it takes them; empty for one that names none."""
    template = kind_class(kind).template
    return template.shapes if template else ()


@cache
def _claimed() -> Mapping[str, frozenset[str]]:
    """Return each usual name → what its roles hold, over all kinds."""
    found: dict[str, frozenset[str]] = {}
    for kind in KINDS:
        for role in (role for shape in shapes(kind) for role in shape.values()):
            for name in (name for group in role.names for name in group.split()):
                found[name] = found.get(name, frozenset()) | frozenset(role.holds.split())
    return found


def _forced(chosen: Mapping[str, Any], table: Sequence[TableColumn]) -> dict[str, TableColumn]:
    """Return role → column as a person chose them. Raises InputError for missing columns."""
    roles = {**chosen, **(chosen.get("columns") or {})}
    roles.pop("columns", None)
    if isinstance(roles.get("text"), list) and len(roles["text"]) == 2:
        roles["text"], roles["text_pair"] = roles["text"]
    known = {column.name: column for column in table}
    found: dict[str, TableColumn] = {}
    for role, value in roles.items():
        names = value if isinstance(value, list) else [value]
        heads = [name if name in known else str(name).partition(".")[0] for name in names]
        if gone := [name for name, head in zip(names, heads, strict=True) if head not in known]:
            raise InputError(
                f"task.{role}: there is no column {gone[0]}{nearest(str(gone[0]), known)}\n{_listed(table)}"
            )
        inside = heads != names  # a key of a column of mappings
        found[role] = (
            sure_column(heads[0], "as chosen", "text" if inside else "labels")
            if inside or names[1:]
            else known[heads[0]]
        )
    return found


def _names_in(chosen: Mapping[str, Any]) -> set[str]:
    values = [*chosen.values(), *(chosen.get("columns") or {}).values()]
    return {str(name) for value in values for name in (value if isinstance(value, list) else [value])}


def _fit(
    kind: str, shape: Shape, table: Sequence[TableColumn], forced: Mapping[str, TableColumn], said: bool
) -> _Fit | None:
    """Return how a shape fits, None where a role has no column. ``said``: a person named the kind."""
    if not _admits(shape, forced, said):
        return None
    hits = {role: [column] for role, column in forced.items()}
    rank = 0
    for role in [role for role in shape if role not in hits]:
        depth, named = _by_name(shape[role], _free(table, hits))
        suiting = [column for column in named if _suits(column, shape[role], loosely=said)]
        if named and not suiting:
            return None
        if suiting:
            hits[role] = suiting
            rank += depth
    for role in [role for role in shape if role not in hits]:
        hits[role] = _by_value(shape[role], _free(table, hits))
        rank += _UNNAMED
        if not hits[role]:
            return None
    fit = _Fit(kind=kind, shape=shape, hits={role: hits[role] for role in shape}, rank=rank)
    return fit if said or forced or _whole(fit, table) else None


def _admits(shape: Shape, forced: Mapping[str, TableColumn], said: bool) -> bool:
    """Whether the columns that a person chose can be those of a shape.

    Several labels in a row are one class only where a person ``said`` the kind.
    """
    if not forced.keys() <= shape.keys() or ("text" in forced and "text_pair" in shape.keys() - forced.keys()):
        return False
    if not said and any(column.separator and shape[role].holds == CLASS.holds for role, column in forced.items()):
        return False
    return all(_suits(column, shape[role], loosely=True) for role, column in forced.items())


def _free(table: Sequence[TableColumn], hits: Mapping[str, Sequence[TableColumn]]) -> list[TableColumn]:
    """Return the columns that no role could take yet."""
    names = {column.name for columns in hits.values() for column in columns}
    return [column for column in table if column.name not in names]


def _by_name(role: Role, free: Sequence[TableColumn]) -> tuple[int, list[TableColumn]]:
    """Return the columns of the first group of names that has any, and the group's number."""
    depths = [(depth, column) for column in free if (depth := role.depth(column.name)) is not None]
    first = min((depth for depth, _ in depths), default=0)
    return first, [column for depth, column in depths if depth == first]


def _by_value(role: Role, free: Sequence[TableColumn]) -> list[TableColumn]:
    """Return the columns that could take a part whatever they are called; none if nothing would be sure."""
    holds = frozenset(role.holds.split()) if role.by_value else frozenset()
    free = [column for column in free if not _ASIDE.fullmatch(column.plain)]
    sure = [column for column in free if holds & column.surely]
    return [column for column in free if holds & column.holds] if sure and "text" not in holds else sure


def _suits(column: TableColumn, role: Role, *, loosely: bool) -> bool:
    return bool(frozenset(role.holds.split()) & (column.loosely if loosely else column.holds))


def _whole(fit: _Fit, table: Sequence[TableColumn]) -> bool:
    """Whether the columns may stand for a whole row of texts: no other looks like a part of it, or of another kind's rows."""
    if not all("text" in role.holds.split() for role in fit.shape.values()):
        return True
    others, rank = _free(table, fit.hits), fit.rank
    if any(each.plain in CLASS.names[0].split() and each.holds for each in others):
        return False  # a label would be left out
    if len(fit.shape) == 1:
        [role] = fit.shape.values()
        if fit.doubts or any(_claimed().get(each.plain, _TEXT) - _TEXT for each in others):
            return False
        [column] = fit.columns.values()
        rank = 0 if column.plain in role.names[0].split() else _UNNAMED
    return not rank or not any(_TEXT & each.surely for each in others)


# What to say where nothing or too much fits.


def _listed(table: Sequence[TableColumn]) -> str:
    return "columns:\n" + "\n".join(f"  {column.name}: {column.about}" for column in table)


def _nothing(table: Sequence[TableColumn], kinds: Sequence[str], again: str) -> str:
    looked = "\n".join(f"  {kind}: {kind_class(kind).template.data}" for kind in kinds if kind_class(kind).template)  # type: ignore[union-attr]  # asked before
    alone = [column.name for column in table if column.alone and CLASS.depth(column.name) is not None]
    classes = [f"{alone[0]} is the same in every row; at least two classes are needed"] if alone else []
    lists = [column.name for column in table if column.about == LISTS]
    inside = [f"if {lists[0]} holds the rows, make a file of them: jq '.{lists[0]}' FILE > rows.json"] if lists else []
    return "\n".join(
        [
            f"no kind of task fits the data as it is; {_listed(table)}",
            *classes,
            *inside,
            f"looked for:\n{looked}",
            *_to_type(table, again),
        ]
    )


def _to_type(table: Sequence[TableColumn], again: str) -> Iterator[str]:
    """Yield the commands that come closest."""
    texts = sorted((c for c in table if "text" in c.holds), key=lambda c: "text" not in c.surely)
    labels = [c for c in table if {"class", "number"} & c.holds and c not in texts[:1]]
    numbers = [c for c in table if "image" in c.holds]
    if not texts and not (numbers and labels):
        yield "any other kind is a Task of your own: sweep task NAME writes a skeleton of it"
        return
    yield "name the columns, for example:"
    if not texts:
        image, label = numbers[0].name, labels[0].name
        yield f"  {again} --kind image-classification --set 'task.image={image}' --set 'task.label={label}'"
        return
    kind = "text-regression" if labels and "class" not in labels[0].holds else "text-classification"
    text = texts[0].name
    if labels:
        yield f"  {again} --kind {kind} --set 'task.text={text}' --set 'task.label={labels[0].name}'"
    yield f"  {again} --kind causal-lm --set 'task.text={text}'"


def _doubtful(fits: Sequence[_Fit], table: Sequence[TableColumn], again: str) -> str:
    ways: dict[str, None] = {}
    for fit in fits if not fits[0].doubts else fits[:1]:
        option = "task.columns." if issubclass(kind_class(fit.kind), ColumnsTask) else "task."
        doubts = fit.doubts or {role: [column] for role, column in fit.columns.items() if role == "label"}
        ways |= dict.fromkeys(
            f"  {again} --kind {fit.kind} --set '{option}{role}={column.name}'"
            for role, hits in doubts.items()
            for column in hits
        )
    if (
        len(pair := fits[0].doubts.get("text", ())) == 2
        and "label" in fits[0].columns
        and not fits[0].doubts.get("label")
    ):
        both = ", ".join(column.name for column in pair)
        ways[f"  {again} --kind {fits[0].kind} --set 'task.text=[{both}]'"] = None
    flags = [column.name for column in fits[0].doubts.get("label", ()) if column.about in _FLAGS]
    if len(flags) > 1:
        kind = "multi-label-classification"
        ways[f"  {again} --kind {kind} --set 'task.label=[{', '.join(flags)}]'"] = None
    roles = words.join(list(fits[0].doubts)) if fits[0].doubts else "label"
    return "\n".join([f"more than one column could be the {roles}; {_listed(table)}", "say which:", *ways])
