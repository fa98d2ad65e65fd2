"""EigenDamage: fine-tune the pruned cells of its tables. `--list` shows the cells, `--help` the
flags.
"""

import sys

from common.running.cli import run
from eigendamage.experiments import FIGURES, TABLES

if __name__ == "__main__":
    sys.exit(run("eigendamage", "finetune", TABLES, FIGURES))
