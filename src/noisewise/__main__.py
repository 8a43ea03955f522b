"""`python -m noisewise` is the command `noisewise`."""

from __future__ import annotations

from noisewise.app.cli import entry

if __name__ == "__main__":
    entry()
