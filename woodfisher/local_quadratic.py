"""`python -m woodfisher.local_quadratic`: the study of this name under its short name."""

import sys

from woodfisher.studies.local_quadratic import main

if __name__ == "__main__":
    sys.exit(main())
