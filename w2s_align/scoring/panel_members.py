"""Who has a say in a panel of scorers, and why the others have none.

Left out are scorers that say nothing, say nearly always the same (Saad-Falcon et al. 2025, arXiv 2506.18203, B.3), or
repeat another one: every label model that takes scorers for independent is bent by copies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from w2s_align.errors import UserError
from w2s_align.scoring.label_model import MISSING, LabelModel, Votes
from w2s_align.scoring.label_model_settings import LabelModelSettings

FEWEST = 3
"""Scorers that are kept in any case: from three on the votes alone say how good each is."""
SAME = 0.95
"""Votes that correlate this much are the same votes, and never kept twice."""


@dataclass
class Members:
    """The columns of the votes that have a say.

    Attributes:
        names: All scorers.
        kept: Numbers of those with a say.
        left_out: Why the others have none.
    """

    names: list[str]
    kept: list[int]
    left_out: dict[int, str]

    def _leave_out(self, number: int, why: str) -> None:
        self.kept.remove(number)
        self.left_out[number] = why

    def leave_out_silent(self, votes: Votes) -> None:
        """Leave out who says the same of every response, or shares no responses with two others."""
        for number in list(self.kept):
            given = votes[:, number][votes[:, number] != MISSING]
            if not len(given):
                self._leave_out(number, "it scored none of the responses")
            elif given.min() == given.max():
                self._leave_out(number, f"it says {'yes' if given[0] else 'no'} to every response")
        while True:
            voted = (votes[:, self.kept] != MISSING).astype(np.float32)
            shared = ((voted.T @ voted) > 1).sum(axis=1) - 1
            few = [
                number for number, count in zip(self.kept, shared, strict=True) if count < min(FEWEST, len(shared)) - 1
            ]
            if not few:
                break
            for number in few:
                self._leave_out(number, "it scored other responses than the other scorers")
        self._refuse_too_few()

    def leave_out_extreme(self, votes: Votes, prior: float, settings: LabelModelSettings) -> None:
        """Leave out who says yes or no nearly always: Weaver's rule (B.3). Rare right answers excuse rare yes."""
        rates = {i: float((votes[:, i] == 1).sum() / (votes[:, i] != MISSING).sum()) for i in self.kept}
        low, high = settings.least_yes, settings.most_yes
        off = {
            i: max(low - rate if prior >= low else 0, rate - high if prior <= high else 0) for i, rate in rates.items()
        }
        for number in sorted(off, key=lambda i: -off[i]):
            if off[number] > 0 and len(self.kept) > FEWEST:
                self._leave_out(number, f"it says yes to {100 * rates[number]:.0f}% of the responses")

    def leave_out_copies(self, model: LabelModel, fitted: list[int], most: float) -> None:
        """Keep the strongest scorers in turn, and leave out who repeats one of them.

        Args:
            model: A first fit.
            fitted: The scorers that it was fitted to.
            most: Correlation from which on a scorer repeats another.
        """
        place = {number: i for i, number in enumerate(fitted)}
        # Rounded, so that of equal scorers the first one stays.
        order = sorted(self.kept, key=lambda i: -round(abs(float(model.strength[place[i]])), 6))
        kept: list[int] = []
        copies: list[tuple[float, int, int]] = []
        for number in order:
            alike = [(abs(model.correlation[place[number], place[other]]), other) for other in kept]
            worst = max(alike, default=(0.0, -1))
            if worst[0] >= most:
                copies.append((worst[0], number, worst[1]))
            else:
                kept.append(number)
        spare = FEWEST - len(kept)
        for correlation, number, other in sorted(copies):
            if spare > 0 and correlation < SAME:
                spare -= 1
                continue
            self._leave_out(number, f"its votes repeat those of {self.names[other]} (correlation {correlation:.2f})")
        self._refuse_too_few()

    def _refuse_too_few(self) -> None:
        """Refuse fewer than two scorers.

        Raises:
            UserError: See above.
        """
        if len(self.kept) >= 2:
            return
        reasons = [f"{self.names[i]}: {why}" for i, why in sorted(self.left_out.items())]
        left = f"{self.names[self.kept[0]]} alone" if self.kept else "none"
        raise UserError(
            f"A label model compares scorers, and of {len(self.names)} {left} can be used.",
            why=f"Left out: {'; '.join(reasons)}." if reasons else "There is one scorer.",
            fix="Add scorers that err in other ways; or use the one that there is by itself.",
        )
