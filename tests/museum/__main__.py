# python -m museum [NAME ...], with tests/ on the path: see runner.py.

from __future__ import annotations

import sys

from museum.runner import main

sys.exit(main(sys.argv[1:]))
