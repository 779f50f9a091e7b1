"""join: several sets of pairs as one, with weights or counts and without what an earlier set has.

Writes the files of an artifact of pairs (see pair_files.py).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from w2s_align.errors import UserError
from w2s_align.recipe.schema import ArtifactType, Reads, Resources, ScoresRef
from w2s_align.steps.pair_files import write_pairs
from w2s_align.steps.step import Step
from w2s_align.steps.tables import join_tables
from w2s_align.steps.work import Work

NamedPairsRef = Annotated[str, Reads(("pairs",), named=True)]
"""A set of pairs; its step's name stands in the audit."""
Weight = Annotated[float, Field(gt=0)]
Number = Annotated[int, Field(ge=1)]


class Join(Step):
    """Join several sets of pairs, with one audit and one dataset card."""

    kind: Literal["join"] = "join"
    pairs: list[NamedPairsRef] = Field(min_length=2)
    """The sets. Of what several have, the first keeps it; the audit counts the pairs of each set as a task."""
    weights: list[Weight] | None = None
    """Share of each set in the whole, e.g. [2, 1]; the whole is as large as it can be with each pair once."""
    counts: list[Number] | None = None
    """Pairs to draw of each set, e.g. [5000, 1000]. Default: all."""
    near_duplicate_prompts: float | None = Field(None, gt=0, le=1)
    """Drop pairs whose prompt shares at least this part of its runs of 3 words with a prompt of an earlier set, e.g.
    0.7. The same pair twice is always dropped."""
    gold: list[ScoresRef] = []
    """Scores against gold answers, for the audit alone."""
    license: str | None = None
    """License of the pairs, for the dataset card; the generators' licenses decide."""
    generator_licenses: dict[str, str] = {}
    """License of models that wrote responses, by name. Default: what the sets say."""
    resources: Resources = Resources(cpus=1, gpus=0)
    """What the step may use of the machine."""

    writes: ClassVar[ArtifactType] = "pairs"

    def check(self) -> None:
        """Refuse a set that is named twice, and weights or counts that do not fit the sets."""
        if len(set(self.pairs)) < len(self.pairs):
            raise UserError("pairs names a set twice.", fix="Give a set more weight, or train for more epochs.")
        if self.weights is not None and self.counts is not None:
            raise UserError("weights and counts are given.", fix="Use one of the two.")
        given = self.counts if self.counts is not None else self.weights
        if given is not None and len(given) != len(self.pairs):
            name = "counts" if self.counts is not None else "weights"
            raise UserError(f"{name} has {len(given)} entries for {len(self.pairs)} sets.", fix="Give one for each.")

    def process(self) -> str | None:
        """Share a process with other steps that only handle rows: starting one takes longer than a small table."""
        return "rows"

    def run(self, work: Work) -> None:
        """Join, audit and write the pairs."""
        import pyarrow.parquet as pq

        from w2s_align.pairing import Audit
        from w2s_align.pairing.join import PairSet, join_pairs
        from w2s_align.pairing.licenses import NOT_STATED

        places = [f"pairs.{index}" for index in range(len(self.pairs))]
        read = {work.sources[at]: work.inputs[at] for at in places}
        sets = [
            PairSet(name, artifact.table("train"), pq.read_table(artifact.path / "lengths.parquet"))
            for name, artifact in read.items()
        ]
        joined = join_pairs(
            sets,
            counts=self.counts,
            weights=self.weights,
            near_duplicate_prompts=self.near_duplicate_prompts,
            seed=self.seed or 0,
        )
        audits = [Audit.from_json(artifact.manifest["result"]["audit"]) for artifact in read.values()]
        known = {model: text for audit in audits for model, text in audit.licenses.items() if text != NOT_STATED}
        gold = [work.inputs[f"gold.{index}"].table() for index in range(len(self.gold))]
        write_pairs(
            work,
            joined,
            gold=join_tables(gold) if gold else None,
            license=self.license,
            generator_licenses=known | self.generator_licenses,
        )
