"""Learning rate against batch size."""
