"""``python -m graphwright``: the command line."""

from __future__ import annotations

import sys

from .frontends.cli import main

sys.exit(main())
