"""python -m tinyqnn is the command line."""

import sys

from tinyqnn.cli import main

sys.exit(main())
