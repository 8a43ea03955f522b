"""The run folder: run.json, the log, checkpoints, samples."""
