"""Devices, processes, precision and memory layout."""
