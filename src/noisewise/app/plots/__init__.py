"""Figures: sheets of pictures, curves, histograms."""
