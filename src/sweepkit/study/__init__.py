"""The question as frozen data: the study, its space, the objective's rule, where its files lie and the words for all of it."""
