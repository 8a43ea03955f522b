"""What is written to the terminal, and signals."""
