"""`python -m common.queue`: common/commands/queue.py under its short name."""

import sys

from common.commands.queue import main

if __name__ == "__main__":
    sys.exit(main())
