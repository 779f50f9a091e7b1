"""What evaluations share: arms with roles that fit together, and scores that say whose they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from w2s_align.errors import UserError, did_you_mean
from w2s_align.recipe.schema import NAME

if TYPE_CHECKING:
    from w2s_align.evaluation.results import Role


def check_arms(arms: Sequence[str], roles: Mapping[str, Role], baseline: str, baselines: Sequence[Role]) -> None:
    """Refuse names, roles and a baseline that do not fit together.

    Args:
        arms: Names of the arms.
        roles: What each of them is.
        baseline: The arm that the others are compared with.
        baselines: Roles that it may have.

    Raises:
        UserError: With what to write instead.
    """
    for name in arms:
        if not NAME.fullmatch(name):
            raise UserError(f"{name!r} cannot name an arm.", fix="Use letters, digits, - and _.")
    if baseline not in arms:
        raise UserError(f"baseline: {baseline} is not an arm.", fix=did_you_mean(baseline, arms))
    for name in roles:
        if name not in arms:
            raise UserError(f"roles: {name} is not an arm.", fix=did_you_mean(name, arms))
    missing = [name for name in arms if name not in roles]
    if missing:
        raise UserError(
            f"roles says nothing about {', '.join(missing)}.",
            why="The verdict must know who teaches, who is tuned, and who is a control.",
            fix=f"roles: {{{missing[0]}: teacher}} (or student, treatment, control, ceiling, other)",
        )
    if roles[baseline] not in baselines:
        raise UserError(f"The baseline {baseline} has the role {roles[baseline]}.", fix=" or ".join(baselines))
