"""Recipes and texts of the flows' tests serve the services, too."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "flows"))
