"""What was tried and what to try next: Optuna's storage in the words of this project."""
