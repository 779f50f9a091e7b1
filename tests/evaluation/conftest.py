"""Makes the simulated study importable: pytest's importlib mode leaves the folders of tests off the path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
