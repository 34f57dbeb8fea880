"""Sweeps: many trainings with other settings, by a grid, at random or by a searcher, summed up in one parent run."""
