"""Trainings as jobs of a Slurm cluster: what is asked for, the script that says so, what became of it, and sweeps."""
