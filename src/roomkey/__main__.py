"""``python -m roomkey`` is ``roomkey``."""

import sys

from roomkey.cli import main

if __name__ == "__main__":
    sys.exit(main())
