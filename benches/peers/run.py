"""Measures vintern beside other engines: ``python benches/peers/run.py --help``."""

from __future__ import annotations

import sys

from peerbench.program import main

if __name__ == "__main__":
    sys.exit(main())
