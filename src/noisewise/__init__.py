"""noisewise: measure the noise, then decide."""
