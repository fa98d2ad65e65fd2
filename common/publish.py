"""`python -m common.publish`: common/commands/publish.py under its short name."""

import sys

from common.commands.publish import main

if __name__ == "__main__":
    sys.exit(main())
