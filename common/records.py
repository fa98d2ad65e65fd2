"""`python -m common.records`: common/commands/records.py under its short name."""

import sys

from common.commands.records import main

if __name__ == "__main__":
    sys.exit(main())
