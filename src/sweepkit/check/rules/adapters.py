"""Rules of adapters: each ``peft.*`` value is a field of every method that a trial may train with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sweepkit.check.rules.names import Consumers, methods_of
from sweepkit.study.errors import Problem
from sweepkit.study.names import parts
from sweepkit.study.space import Occurrence, visit
from sweepkit.study.study import StudyData
from sweepkit.tasks.adapters import REFUSED


def check_adapters(study: StudyData, consumers: Consumers) -> Iterator[Problem]:
    """Yield methods that cannot be trained, and values that a method which a trial may train does not have."""
    if not consumers.adapters:
        return
    places: list[tuple[str, str, Occurrence | None]] = [(each.path, each.name, each) for each in visit(study.space)]
    places += [(f"training.{name}", name, None) for name in study.training]
    for path, name, found in places:
        if parts(name)[0] != "peft":
            continue
        methods = methods_of(study, found)
        known = consumers.resolve(name)[0] is not None
        if name == "peft.type" and (refused := next((each for each in methods if each in REFUSED), None)):
            yield Problem(path, f"{refused} cannot be trained here: {REFUSED[refused]}")
        for method in methods if known else ():
            complaint = replace(consumers, methods=[method]).resolve(name)[1] if method in consumers.adapters else ""
            if complaint:
                here = f"; peft.type may be {method} here, so set it in the branches that take it"
                yield Problem(path, f"{complaint}{here if len(methods) > 1 else ''}")
                break
