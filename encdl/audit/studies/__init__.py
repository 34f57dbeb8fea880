"""Studies: many trainings of one recipe, compared in one result record."""
