"""Read pictures from disk into uint8 arrays; this package knows nothing about training."""
