"""EigenDamage: the dense networks of its tables. `--list` shows the cells, `--help` the flags."""

import sys

from common.running.cli import run
from eigendamage.experiments import FIGURES, TABLES

if __name__ == "__main__":
    sys.exit(run("eigendamage", "train", TABLES, FIGURES))
