"""Training: devices, time and runs. One public verb a file."""
