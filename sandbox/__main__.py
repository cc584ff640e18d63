"""``python -m sandbox`` is the command ``sandbox``."""

import sys

from .cli import main

sys.exit(main())
