"""Tests of noisewise.diffusion, held against exact solutions (oracle.py)."""
