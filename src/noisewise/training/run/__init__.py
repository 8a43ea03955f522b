"""The run folder: run.json, log, checkpoints."""
