"""Training, distilling and judging pictures."""
