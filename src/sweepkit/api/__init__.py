"""What one imports: the study with verbs, runs in the background, and a drop-in for the Trainer's own search."""

from sweepkit.api.study import Study, load_study

__all__ = ["Study", "load_study"]
