"""Benchmarks: low-rank factorisations."""
