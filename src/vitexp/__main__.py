"""`python -m vitexp` is the command `vitexp`."""

import sys

from vitexp.cli import main

if __name__ == "__main__":
    sys.exit(main())
