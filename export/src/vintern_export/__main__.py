"""Runs the command line as ``python -m vintern_export``."""

import sys

from vintern_export.cli import main

if __name__ == "__main__":
    sys.exit(main())
