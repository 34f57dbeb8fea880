"""Training: the command line over Lightning, tasks, tracking by MLflow, callbacks, and runs that can be stopped."""
