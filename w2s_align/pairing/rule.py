"""What a pair rule is: its options with their help, the tables that it reads, and how it chooses.

A rule is one class in one file under ``rules/``, and a line in ``rules/__init__.py``. The ``pair`` step takes its
options, their help and their checks from there::

    class Longest(ScoreRule):
        \"\"\"the longer of two responses with the same score wins\"\"\"

        name = "longest"
        least: int = Field(1, ge=1)
        \"\"\"Least difference of the lengths, in characters.\"\"\"

        def select(self, candidates: Candidates, seed: int) -> Selection: ...
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, TypeAlias

import pyarrow as pa
from pydantic import ValidationError

from w2s_align.errors import UserError
from w2s_align.pairing.assemble import Options, Pairs, make_pairs
from w2s_align.pairing.candidates import Candidates, make_candidates
from w2s_align.pairing.selection import Selection
from w2s_align.pairing.settings import Filters
from w2s_align.records import Settings

Holds: TypeAlias = Literal["responses", "scores", "verdicts"]
"""What the rows of an input are."""


@dataclass(frozen=True)
class Input:
    """A table that a rule reads.

    Attributes:
        name: What the recipe calls it.
        holds: Its rows: responses, scores, or the verdicts behind a judge's scores.
        help: What it is, for the catalogue.
        many: Whether it may be several tables, which are read as one.
    """

    name: str
    holds: Holds
    help: str
    many: bool = False


BETTER_AND_WORSE = (
    Input("chosen", "responses", "Responses of the better model."),
    Input("rejected", "responses", "Responses of the worse model."),
)
"""Inputs of a rule by model."""
CANDIDATES = Input("responses", "responses", "Candidates of all models.", many=True)
SCORED = (
    CANDIDATES,
    Input("scores", "scores", "Their scores; for the rule judge, steps of kind judge with mode: pairwise.", many=True),
)
"""Inputs of a rule by score."""


class Rule(Settings):
    """A pair rule with its options. The docstring of a rule is its help, a clause without a period.

    Attributes:
        name: Name of the rule, as in a recipe and in ``Pair.rule``.
        inputs: The tables that it reads, in the order of the arguments of :meth:`make`.
        newer: Options that came later: pairs that were made without them keep their key.
    """

    name: ClassVar[str]
    inputs: ClassVar[tuple[Input, ...]]
    newer: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def of(cls, **values: Any) -> Self:
        """Return the rule with some options.

        Raises:
            UserError: An option is not known, has a value that does not fit, or does not go with another.
        """
        try:
            rule = cls(**values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            option = ".".join(str(part) for part in first["loc"])
            raise UserError(f"{cls.name}: {option} cannot be {first['input']!r}.", why=f"{first['msg']}.") from None
        rule.check()
        return rule

    def check(self) -> None:
        """Refuse options that are missing or do not go together.

        Raises:
            UserError: With the way out.
        """

    def make(self, tables: Sequence[pa.Table], prompts: pa.Table, options: Options) -> Pairs:
        """Make pairs of responses.

        Args:
            tables: The tables of :attr:`inputs`.
            prompts: Rows of :class:`w2s_align.records.Prompt`; their order is the order of the pairs.
            options: What every rule takes.

        Raises:
            UserError: See :class:`~w2s_align.pairing.assemble.Options`.
        """
        filters = options.get("filters") or Filters()
        candidates, selection = self.choose(tables, prompts, filters, options.get("seed", 0))
        return make_pairs(self.name, candidates, selection, options)

    def choose(
        self, tables: Sequence[pa.Table], prompts: pa.Table, filters: Filters, seed: int
    ) -> tuple[Candidates, Selection]:
        """Return the candidates and what the rule selects of them; for a rule that reads responses alone.

        Args:
            tables: The tables of :attr:`inputs`.
            prompts: The prompts.
            filters: Which responses to set aside before the rule chooses.
            seed: Seed of every random choice.
        """
        candidates = make_candidates(prompts, tables, filters=filters)
        return candidates, self.select(candidates, seed)

    def select(self, candidates: Candidates, seed: int) -> Selection:
        """Select pairs of the candidates, and say why prompts have none."""
        raise NotImplementedError(f"{type(self).__name__} has neither select() nor choose()")


class ScoreRule(Rule):
    """A rule that compares one score of every response."""

    inputs: ClassVar[tuple[Input, ...]] = SCORED

    scorer: str | None = None
    """Which scorer's scores to use, when scores has several; its name is in the scores."""

    def choose(
        self, tables: Sequence[pa.Table], prompts: pa.Table, filters: Filters, seed: int
    ) -> tuple[Candidates, Selection]:
        """Join the scores to the responses, and select."""
        responses, scores = tables
        candidates = make_candidates(prompts, [responses], scores, scorer=self.scorer, filters=filters)
        return candidates, self.select(candidates, seed)
