"""Pictures on disk, read into uint8 arrays; knows nothing of training."""
