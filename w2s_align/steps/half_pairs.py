"""half_pairs: one of two parts of some pairs, drawn at random with the seed; pairs of one prompt are never in both.

Reads pairs; writes the files of an artifact of pairs (see pair_files.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from w2s_align.recipe.schema import ArtifactType, PairsRef, Resources
from w2s_align.steps.pair_files import write_pairs
from w2s_align.steps.step import Step
from w2s_align.steps.work import Work

if TYPE_CHECKING:
    import pyarrow as pa


class HalfPairs(Step):
    """Take the first or the second half of some pairs: one to teach a weak model, the other for it to label."""

    kind: Literal["half_pairs"] = "half_pairs"
    pairs: PairsRef
    """What is divided. Which response is the chosen one is not read."""
    half: Literal["first", "second"]
    """Which part. Two steps with the same pairs, share and seed have all pairs between them, each in one."""
    share: float = Field(0.5, gt=0, lt=1)
    """Share of the pairs in the first part."""
    apart_from: PairsRef | Annotated[list[PairsRef], Field(min_length=1)] | None = None
    """Pairs of whose prompts neither part may have one: the test."""
    license: str | None = None
    """License of the pairs, for the dataset card."""
    generator_licenses: dict[str, str] = {}
    """License of models that wrote responses, by name. Default: what their cards say."""
    resources: Resources = Resources(cpus=1, gpus=0)
    """What the step may use of the machine."""

    writes: ClassVar[ArtifactType] = "pairs"

    def process(self) -> str | None:
        """Share a process with other steps that only handle rows: starting one takes longer than a small table."""
        return "rows"

    def run(self, work: Work) -> None:
        """Divide, and write one part."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        from w2s_align.interchange.halves import first_half, refuse_overlap
        from w2s_align.pairing.assemble import Pairs
        from w2s_align.pairing.counts import Counts
        from w2s_align.pairing.dropped import DROPPED
        from w2s_align.records import pair_columns

        source = work.inputs["pairs"]
        (pairs,) = pair_columns([source.table()])
        test = [found.table() for place, found in work.inputs.items() if place.partition(".")[0] == "apart_from"]
        if test:
            refuse_overlap(_as_items(pairs), pa.concat_tables([_as_items(table) for table in test]))
        first = first_half(_as_items(pairs), self.share, self.seed or 0)
        mask = pa.array([one == (self.half == "first") for one in first])
        kept = pairs.filter(mask)
        lengths = pq.read_table(source.path / "lengths.parquet").filter(mask)
        counts = Counts(
            {"pair": pairs.num_rows, "prompt": len(set(pairs["prompt_id"].to_pylist()))},
            {"pair": kept.num_rows, "prompt": len(set(kept["prompt_id"].to_pylist()))},
        )
        tasks = pa.chunked_array([pa.array([""] * kept.num_rows, pa.string())])
        made = Pairs(kept, DROPPED.empty_table(), counts, lengths, tasks)
        write_pairs(work, made, license=self.license, generator_licenses=self.generator_licenses)
        work.counts["rows_in"] = pairs.num_rows
        work.counts["in_the_other_half"] = pairs.num_rows - kept.num_rows


def _as_items(pairs: pa.Table) -> pa.Table:
    """Return what halves are drawn by: the prompt is the group of its pairs."""
    import pyarrow as pa

    return pa.table({"id": pairs["prompt_id"], "group": pairs["prompt_id"]})
