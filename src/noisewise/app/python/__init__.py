"""What Python users call: the verbs of `noisewise.training`, with progress and a kind interrupt."""
