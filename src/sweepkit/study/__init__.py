"""The question as frozen data: the study, its space and objective, its files on disk, and the tables of what it can name."""
