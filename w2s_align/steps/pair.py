"""pair: preference pairs with a known delta, from the responses of a weak and a weaker model, or from scores.

Reads responses (and the prompts behind them), scores where the rule needs them; writes data/train-*.parquet
(records.Pair, which is TRL's conversational format), dropped.parquet, lengths.parquet and README.md (a dataset card).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from w2s_align.errors import UserError
from w2s_align.pairing import Control, Filters
from w2s_align.recipe.schema import ArtifactType, Resources, ResponsesRef, ScoresRef
from w2s_align.steps.step import Step
from w2s_align.steps.work import Artifact, Work

if TYPE_CHECKING:
    import pyarrow as pa

    from w2s_align.pairing import Pairs

BY_MODEL, BY_SCORE = ("chosen", "rejected"), ("responses", "scores")
READS: dict[str, tuple[str, ...]] = {
    "model_order": BY_MODEL,
    "self_over_weaker": BY_MODEL,
    "score_gap": BY_SCORE,
    "correctness": BY_SCORE,
    "best_worst": BY_SCORE,
    "best_random": BY_SCORE,
    "worst_of_weak": BY_SCORE,
    "max_delta": BY_SCORE,
}
"""Which fields name the input of each rule."""

TAKES: dict[str, tuple[str, ...]] = {
    "score_gap": ("margin", "pick"),
    "correctness": ("right_at",),
    "best_worst": ("margin",),
    "worst_of_weak": ("margin", "weak_models"),
}
"""Options that only some rules take."""


class PairStep(Step):
    """Build preference pairs by a rule, and say how large and how clean the delta is."""

    kind: Literal["pair"] = "pair"
    rule: Literal[
        "model_order",
        "self_over_weaker",
        "score_gap",
        "correctness",
        "best_worst",
        "best_random",
        "worst_of_weak",
        "max_delta",
    ]
    """Which model wrote it, from chosen and rejected: model_order (delta learning), self_over_weaker. Which score it
    has, from responses and scores: score_gap, correctness (right over wrong), best_worst, best_random (Tülu 3),
    worst_of_weak (Olmo 3), max_delta (the two models that are furthest apart)."""
    chosen: ResponsesRef | None = None
    """Responses of the better model, for rules by model."""
    rejected: ResponsesRef | None = None
    """Responses of the worse model, for rules by model."""
    responses: list[ResponsesRef] = []
    """Candidates of all models, for rules by score."""
    scores: list[ScoresRef] = []
    """Their scores, for rules by score."""
    gold: list[ScoresRef] = []
    """Scores against gold answers, for the audit alone: the pairs are the same without them."""
    margin: float = Field(0.0, ge=0)
    """Least difference of the scores (score_gap, best_worst, worst_of_weak)."""
    pick: Literal["largest", "smallest", "random"] = "largest"
    """Which gap of several to take first (score_gap)."""
    right_at: float = 1.0
    """A response is right from this score on (correctness)."""
    weak_models: list[str] = []
    """Models whose worst response is rejected (worst_of_weak)."""
    control: Control = "none"
    """reversed: chosen and rejected swapped. tied: both sides of equal quality. shuffled: labels by coin."""
    filters: Filters = Filters()
    """What is dropped."""
    pairs_per_prompt: int = Field(1, ge=1)
    """At most this many pairs of one prompt."""
    licence: str | None = None
    """Licence of the pairs, for the dataset card; the generators' licences decide."""
    generator_licences: dict[str, str] = {}
    """Licence of every model that wrote responses, by its name, for the dataset card."""
    resources: Resources = Resources(gpus=0)
    """What the step may use of the machine."""

    writes: ClassVar[ArtifactType] = "pairs"

    def check(self) -> None:
        """Refuse a rule without its inputs, and inputs that the rule does not read."""
        needed = READS[self.rule]
        for name in needed:
            if not getattr(self, name):
                raise UserError(f"The rule {self.rule} needs {name}.", fix=f"Add {name}: $step")
        for name in ("chosen", "rejected", "responses", "scores"):
            if name not in needed and getattr(self, name):
                raise UserError(f"The rule {self.rule} does not read {name}.", fix=f"It reads {' and '.join(needed)}.")
        for name in {option for options in TAKES.values() for option in options} - set(TAKES.get(self.rule, ())):
            if getattr(self, name) != type(self).model_fields[name].default:
                rules = ", ".join(rule for rule, options in TAKES.items() if name in options)
                raise UserError(f"The rule {self.rule} does not take {name}.", fix=f"It belongs to {rules}.")

    def run(self, work: Work) -> None:
        """Build, audit and write the pairs."""
        from w2s_align.pairing import CardFacts, export_pairs

        pairs = self._build(work)
        audit = pairs.audit(self._scores(work, "gold"))
        if not pairs.table.num_rows:
            raise UserError(
                f"The rule {self.rule} made no pair.",
                why=f"Counts: {json.dumps(pairs.counts)}.",
                fix="Look at the responses with `w2s show`, loosen the filters, or give more prompts.",
            )
        facts = CardFacts(name=work.name, license=self.licence or "other", generator_licenses=self.generator_licences)
        export_pairs(pairs.table, work.out, facts, audit=audit, counts=pairs.counts)
        _write_beside(work, pairs)
        work.counts.update(rows_in=pairs.counts["prompts"], kept=pairs.counts["pairs"], dropped=_dropped(pairs.counts))
        work.counts["detail"] = pairs.counts
        work.result["audit"] = json.loads(json.dumps(audit.to_json()))
        work.warnings += audit.warnings

    def _build(self, work: Work) -> Pairs:
        from w2s_align import pairing

        options: dict[str, Any] = {name: getattr(self, name) for name in TAKES.get(self.rule, ())}
        options |= {"filters": self.filters, "control": self.control, "pairs_per_prompt": self.pairs_per_prompt}
        options["seed"] = self.seed or 0
        rule = pairing.RULES[self.rule]
        if READS[self.rule] == BY_MODEL:
            sides = [work.inputs["chosen"], work.inputs["rejected"]]
            return rule(sides[0].table(), sides[1].table(), _prompts(sides), **options)
        sources = [work.inputs[f"responses.{index}"] for index in range(len(self.responses))]
        return rule(_concat([s.table() for s in sources]), self._scores(work, "scores"), _prompts(sources), **options)

    def _scores(self, work: Work, name: str) -> pa.Table | None:
        tables = [work.inputs[f"{name}.{index}"].table() for index in range(len(getattr(self, name)))]
        return _concat(tables) if tables else None


def _write_beside(work: Work, pairs: Pairs) -> None:
    """Write what belongs to the pairs but is no training data; ``data/`` holds nothing but what TRL reads."""
    import pyarrow.parquet as pq

    pq.write_table(pairs.dropped, work.out / "dropped.parquet")
    pq.write_table(pairs.lengths, work.out / "lengths.parquet")


def _prompts(responses: list[Artifact]) -> pa.Table:
    """Return the prompts behind responses, each once."""
    behind = {artifact.prompts().path: artifact.prompts() for artifact in responses}
    tables = [artifact.table() for artifact in behind.values()]
    if len(tables) == 1:
        return tables[0]
    import polars as pl

    merged = pl.concat([pl.DataFrame(pl.from_arrow(table)) for table in tables])
    return merged.unique("id", keep="first", maintain_order=True).to_arrow().cast(tables[0].schema)


def _concat(tables: list[pa.Table]) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables(tables)


def _dropped(counts: dict[str, int]) -> dict[str, int]:
    """Return the prompts that ended without a pair, by reason."""
    prefix = "prompts dropped: "
    return {name.removeprefix(prefix): n for name, n in counts.items() if name.startswith(prefix)}
