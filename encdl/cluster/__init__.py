"""Trainings as jobs of a cluster: what is asked for, the script that says so, and what became of it."""
