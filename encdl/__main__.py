"""`python -m encdl` is the command `encdl`."""

import sys

from encdl.cli import main

if __name__ == "__main__":
    sys.exit(main())
