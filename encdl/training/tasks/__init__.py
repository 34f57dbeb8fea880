"""LightningModules: training only."""
