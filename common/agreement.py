"""`python -m common.agreement`: common/commands/agreement.py under its short name."""

import sys

from common.commands.agreement import main

if __name__ == "__main__":
    sys.exit(main())
