"""Files that a recipe names: beside the recipe, where the current folder has none."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationInfo


def beside_the_recipe(given: str, info: ValidationInfo, *, folders: bool = False) -> str:
    """Return a path as given, or that beside the recipe where there is no such file in the current folder.

    Args:
        given: Path or name in the recipe.
        info: Knows the recipe's folder.
        folders: A folder is a source as well.
    """
    folder = (info.context or {}).get("folder")
    if folder is None or Path(given).expanduser().exists():
        return given
    found: Path = folder / given
    return str(found) if found.is_file() or (folders and found.is_dir()) else given
