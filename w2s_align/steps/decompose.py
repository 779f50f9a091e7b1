"""decompose: sub-problems of hard problems, by a model that sees their solutions and checks what it has made.

Reads prompts whose answers are solutions; writes data/prompts.parquet (records.Prompt: the sub-problems with their
solutions as gold answers) and dropped.parquet (generation.decompose.DROPPED).
"""

from __future__ import annotations

import shutil
from collections import Counter
from typing import Annotated, ClassVar, Literal

from w2s_align.errors import UserError
from w2s_align.generation.decompose import DecomposeSettings
from w2s_align.generation.settings import Engine, Sampling
from w2s_align.recipe.schema import ArtifactType, PromptsRef, Reads
from w2s_align.steps.asking import AskingStep
from w2s_align.steps.generate import GenerateResources
from w2s_align.steps.work import Work, in_words


class Decompose(AskingStep, DecomposeSettings):
    """Take problems apart into smaller ones with their solutions, and keep those that pass three checks."""

    kind: Literal["decompose"] = "decompose"
    model: Annotated[str, Reads(("model",), literal=True, named=True)]
    """Who decomposes and checks: a hub id, a folder, or $step."""
    prompts: PromptsRef
    """The problems; their gold answers are whole solutions, and are read."""
    sampling: Sampling = Sampling(temperature=0, max_tokens=2048)
    """How answers are drawn. Default: ours; the source's were not found."""
    engine: Engine = Engine()
    """Engine, number format, context of the model; {name: openai} asks a server."""
    resources: GenerateResources = GenerateResources()
    """What the step may use of the machine; changes nothing in what it writes."""

    writes: ClassVar[ArtifactType] = "prompts"

    def check(self) -> None:
        """Refuse several answers, and what a generation would refuse."""
        if self.sampling.n != 1:
            raise UserError(f"sampling.n is {self.sampling.n}, and a decomposition is one text.", fix="Leave n out.")
        super().check()

    def run(self, work: Work) -> None:
        """Decompose, going on from the answers that an earlier try finished."""
        import pyarrow.parquet as pq

        from w2s_align.generation.decompose import decompose

        problems = work.inputs["prompts"].table()
        found = decompose(
            work.model("model", self.model),
            problems,
            DecomposeSettings.model_validate(self.model_dump(include=set(DecomposeSettings.model_fields))),
            **self.ways(work),
        )
        dropped = dict(Counter(found.dropped["reason"].to_pylist()))
        if not found.prompts.num_rows:
            raise UserError(
                "No sub-problem is left.",
                why=f"Counts: {in_words(dropped)}.",
                fix="Give problems whose answers are solutions, and a model that follows the form; see wording.",
            )
        work.write(found.prompts, "prompts")
        pq.write_table(found.dropped, work.out / "dropped.parquet")
        families = len(set(found.prompts["group"].to_pylist()))
        work.counts.update(rows_in=problems.num_rows, kept=found.prompts.num_rows, dropped=dropped, **found.counts)
        work.result.update(families=families, sub_problems=found.prompts.num_rows)
        shutil.rmtree(work.out / "asked", ignore_errors=True)
