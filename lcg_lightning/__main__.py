"""``python -m lcg_lightning`` is ``lcg``."""

import sys

from lcg_lightning.cli import main

sys.exit(main())
