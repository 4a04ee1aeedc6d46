"""What was tried and what to try next: a study's trials in an Optuna storage."""
