"""What is trained, and the loop that drives it."""
