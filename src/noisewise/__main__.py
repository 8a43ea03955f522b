"""`python -m noisewise` is the command `noisewise`."""

from __future__ import annotations

import sys

from noisewise.app.cli import main

if __name__ == "__main__":
    sys.exit(main())
