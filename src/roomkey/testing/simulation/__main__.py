"""``python -m roomkey.testing.simulation``."""

import sys

from roomkey.testing.simulation.command_line import main

if __name__ == "__main__":
    sys.exit(main())
