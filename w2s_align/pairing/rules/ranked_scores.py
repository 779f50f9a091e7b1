"""Several scores decide in order of importance: the first that differs by more than its margin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal, Unpack

import pyarrow as pa
from pydantic import Field

from w2s_align.errors import UserError
from w2s_align.pairing.assemble import Options, Pairs
from w2s_align.pairing.candidates import Candidates, join_scores, make_candidates
from w2s_align.pairing.rule import SCORED, Input, Rule
from w2s_align.pairing.selection import Selection, declined_by_score, in_cycles, in_random_order
from w2s_align.pairing.settings import Filters
from w2s_align.records import Settings

if TYPE_CHECKING:
    import polars as pl


class Level(Settings):
    """One score of :func:`w2s_align.pairing.ranked_scores`."""

    scorer: str
    """Name of the scorer."""
    margin: float = Field(default=0.0, ge=0)
    """A difference up to this decides nothing."""
    unit: Literal["score", "std"] = "score"
    """Unit of the margin: that of the score, or the standard deviation of the score over all candidates."""
    lower_is_better: bool = False
    """The lower score wins."""


class RankedScores(Rule):
    """several scorers decide in order of importance (HERON)"""

    name: ClassVar[str] = "ranked_scores"
    inputs: ClassVar[tuple[Input, ...]] = SCORED

    levels: list[Level] = []
    """Scorers, most important first: the first that differs by more than its margin decides."""

    def check(self) -> None:
        """Refuse a rule without levels."""
        if not self.levels:
            raise UserError(
                "The rule ranked_scores needs levels.",
                fix="levels: [{scorer: exact}, {scorer: judge:rater, margin: 1}]",
            )

    def choose(
        self, tables: Sequence[pa.Table], prompts: pa.Table, filters: Filters, seed: int
    ) -> tuple[Candidates, Selection]:
        """Join the scores of all levels to the responses, and select."""
        responses, scores = tables
        candidates = make_candidates(prompts, [responses], filters=filters)
        candidates, margins = self._with_levels(candidates, scores)
        return candidates, self._by_level(candidates, margins, seed)

    def _with_levels(self, candidates: Candidates, scores: pa.Table) -> tuple[Candidates, list[float]]:
        """Add the score of each level as ``score_0``, ``score_1``, ..., and return the margins as well.

        Signs are turned so that higher is better. Margins in standard deviations are taken over the whole set, once: a
        margin taken from each batch, as in HERON's code, drifts.
        """
        import polars as pl

        frame = candidates.frame
        ids = pl.Series("prompt_id", pl.from_arrow(candidates.responses["prompt_id"]))
        frame = frame.with_columns(prompt_id=ids.gather(frame["row"]))
        margins = []
        for i, level in enumerate(self.levels):
            name = f"score_{i}"
            frame = join_scores(frame, scores, level.scorer, name)
            if level.lower_is_better:
                frame = frame.with_columns(-pl.col(name))
            spread = frame[name].std() or 0.0 if level.unit == "std" else 1.0
            margins.append(level.margin * spread)
        return replace(candidates, frame=frame.drop("prompt_id")), margins

    def _by_level(self, candidates: Candidates, margins: Sequence[float], seed: int) -> Selection:
        """Pair responses by the first level that decides.

        Pairs that are part of a cycle of three (a over b over c over a, which thresholds allow) are left out. Of the
        pairs of one prompt those decided at the most important level come first, then those with the larger difference
        in units of the margin.
        """
        import polars as pl

        decided = self._decided(candidates, margins)
        cyclic = in_cycles(decided)
        pairs = decided.join(cyclic, on=["chosen", "rejected"], how="anti", maintain_order="left")
        gap = pl.col("score_chosen") - pl.col("score_rejected")
        unit = pl.Series([margin or 1.0 for margin in margins])
        pairs = in_random_order(pairs, candidates, seed)
        pairs = pairs.with_columns(size=gap / unit.gather(pairs["level"]))
        pairs = pairs.sort("prompt", "level", "size", descending=[False, False, True], maintain_order=True)
        names = pl.Series([f"{self.name}:{level.scorer}" for level in self.levels])
        pairs = pairs.with_columns(rule=names.gather(pairs["level"])).drop("level", "size")
        return Selection(pairs, declined_by_score(pairs, candidates, "no level decides"))

    def _decided(self, candidates: Candidates, margins: Sequence[float]) -> pl.DataFrame:
        """Return every two responses of a prompt that a level tells apart, with the scores at that ``level``."""
        import polars as pl

        columns = [f"score_{level}" for level in range(len(margins))]
        frame = candidates.frame.select("prompt", "row", *columns)
        left = frame.rename({"row": "chosen", **{column: f"{column}_left" for column in columns}})
        right = frame.rename({"row": "rejected", **{column: f"{column}_right" for column in columns}})
        both = left.join(right, on="prompt", maintain_order="left_right").filter(
            pl.col("chosen") != pl.col("rejected")
        )
        level = pl.coalesce(
            pl.when((pl.col(f"{column}_left") - pl.col(f"{column}_right")).abs() > margin).then(
                pl.lit(i, dtype=pl.Int32)
            )
            for i, (column, margin) in enumerate(zip(columns, margins, strict=True))
        )

        def at_level(side: str) -> pl.Expr:
            return pl.coalesce(pl.when(pl.col("level") == i).then(f"{c}_{side}") for i, c in enumerate(columns))

        decided = both.with_columns(level=level).filter(pl.col("level").is_not_null())
        decided = decided.with_columns(score_chosen=at_level("left"), score_rejected=at_level("right"))
        decided = decided.filter(pl.col("score_chosen") > pl.col("score_rejected"))
        return decided.select("prompt", "chosen", "rejected", "score_chosen", "score_rejected", "level")


def ranked_scores(
    responses: pa.Table,
    scores: pa.Table,
    prompts: pa.Table,
    *,
    levels: Sequence[Level],
    **options: Unpack[Options],
) -> Pairs:
    """Let several scores decide in order of importance, as HERON does.

    The first level at which two responses differ by more than its margin decides; a level at which one of them has no
    score is skipped. ``Pair.rule`` names the deciding scorer, ``score_chosen`` and ``score_rejected`` are its scores
    (turned so that higher is better). See docs/methods/heron.md.

    Args:
        responses: Candidates of all models.
        scores: Scores of all levels' scorers.
        prompts: The prompts.
        levels: The scorers, most important first, each with its margin.
        **options: See :class:`Options`.

    Raises:
        UserError: See :class:`Options`; or there are no levels, or no scores of one of them.
    """
    return RankedScores.of(levels=list(levels)).make([responses, scores], prompts, options)
