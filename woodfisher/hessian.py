"""`python -m woodfisher.hessian`: woodfisher/studies/hessian.py under its short name."""

import sys

from woodfisher.studies.hessian import main

if __name__ == "__main__":
    sys.exit(main())
