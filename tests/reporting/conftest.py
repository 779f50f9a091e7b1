"""Makes the simulated study and the browser importable: pytest's importlib mode leaves test folders off the path."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "evaluation")]
