"""NAP: prune the cells of its tables and figures, fine-tuning between the steps. `--list` shows the
cells, `--help` the flags.
"""

import sys

from common.running.cli import run
from nap.experiments import BARE, FIGURES, TABLES

if __name__ == "__main__":
    sys.exit(run("nap", "prune", TABLES, FIGURES, base=BARE))
