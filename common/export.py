"""`python -m common.export`: common/commands/export.py under its short name."""

import sys

from common.commands.export import main

if __name__ == "__main__":
    sys.exit(main())
