"""Low-rank factorisations."""
