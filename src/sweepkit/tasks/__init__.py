"""What is trained: Task, the built-in kinds, their data, models by reference, metrics."""
