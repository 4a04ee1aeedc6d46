"""MLflow, the record people look at: one experiment per study, one parent run, one child run per trial.

By default the store is ``mlflow.db`` under the project root, its files in ``mlartifacts/`` beside it; neither belongs
into git. mlflow itself is imported by ``store`` and what builds on it, when something is delivered.
"""
