"""Comparing powers."""
