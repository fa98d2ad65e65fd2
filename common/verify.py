"""`python -m common.verify`: common/commands/verify.py under its short name."""

import sys

from common.commands.verify import main

if __name__ == "__main__":
    sys.exit(main())
