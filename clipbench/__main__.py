"""`python -m clipbench`."""

import sys

from clipbench.cli import main

if __name__ == "__main__":
    sys.exit(main())
