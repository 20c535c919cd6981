"""`python -m clipbench`."""

import sys

from clipbench.commands import main

if __name__ == "__main__":
    sys.exit(main())
