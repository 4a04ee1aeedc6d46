"""Tasks: what is trained. A kind is a file of this folder; :mod:`sweepkit.tasks.task` says what a Task is.

Knows nothing of search, processes or tracking, and imports nothing heavy.
"""

from sweepkit.tasks.kinds import KINDS, load_task, option_defaults, option_names, task_class
from sweepkit.tasks.task import ALWAYS_REPORTED, Task

__all__ = ["ALWAYS_REPORTED", "KINDS", "Task", "load_task", "option_defaults", "option_names", "task_class"]
