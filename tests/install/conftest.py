"""What the tests of the installation share."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a checkout that holds what the installation reads, and no environment."""
    made = tmp_path / "w2s align"  # paths with blanks are paths too
    made.mkdir()
    for name in ("scripts", "requirements"):
        shutil.copytree(ROOT / name, made / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, made / name)
    return made
