"""Programs that measure what noisewise claims; `python -m benchmarks.FOLDER.PROGRAM`."""
