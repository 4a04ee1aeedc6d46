"""Runs a study from the lock to the answer: preparation, session, budget, confirmation; and the probe before it."""
