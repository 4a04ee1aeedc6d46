"""Records studies in MLflow: one experiment per study, one parent run, one child run per trial.

By default the store is ``mlflow.db`` under the project root and its files ``mlartifacts/`` beside it; neither belongs in
git. mlflow is imported by ``store`` and the modules above it, when something is delivered.
"""
