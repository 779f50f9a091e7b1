"""Which version of w2s-align a recipe is for."""

from __future__ import annotations

from w2s_align.errors import UserError
from w2s_align.files import installed_version
from w2s_align.recipe.document import Document


def version_here() -> str | None:
    """Return the installed version of w2s-align; None in a checkout that was not installed."""
    return installed_version("w2s-align")


def check_version(document: Document) -> None:
    """Refuse a recipe that is for another version: whatever else is wrong with it comes from that.

    Raises:
        UserError: It is for another version, or does not say versions as pip writes them.
    """
    wanted = document.data.get("w2s_align")
    here = version_here()
    if wanted is None or here is None:
        return
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        fits = SpecifierSet(wanted).contains(here, prereleases=True) if isinstance(wanted, str) else None
    except InvalidSpecifier:
        fits = None
    if fits is None:
        raise UserError(
            f"w2s_align: {wanted!r} is not a version specifier.",
            fix='Write it as for pip: w2s_align: ">=0.1"',
            where=document.where(("w2s_align",)),
        )
    if not fits:
        raise UserError(
            f"The recipe is for w2s-align {wanted}, and this is {here}.",
            why="Options are added, removed and changed between versions.",
            fix=f"pip install 'w2s-align{wanted}', or change the line w2s_align to see which options no longer exist.",
            where=document.where(("w2s_align",)),
        )
