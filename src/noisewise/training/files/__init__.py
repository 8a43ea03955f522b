"""Atomic files, the lock of a run folder, and sample sheets."""
