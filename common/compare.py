"""`python -m common.compare`: common/commands/compare.py under its short name."""

import sys

from common.commands.compare import main

if __name__ == "__main__":
    sys.exit(main())
