"""What is written to the terminal; signals from it."""
