"""Benchmark: comparing powers."""
