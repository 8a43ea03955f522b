"""Trained models in memory and on disk."""
