"""WoodFisher: prune the cells of its tables and figures. `--list` shows the cells, `--help` the
flags.
"""

import sys

from common.running.cli import run
from woodfisher.experiments import FIGURES, TABLES

if __name__ == "__main__":
    sys.exit(run("woodfisher", "prune", TABLES, FIGURES))
