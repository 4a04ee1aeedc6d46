"""Studies in Python and in notebooks: the data of :mod:`sweepkit.study` with verbs, and a live view of a run.

Everything heavy is imported by the verb that needs it.
"""

from sweepkit.api.study import Study, load_study

__all__ = ["Study", "load_study"]
