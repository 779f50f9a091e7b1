"""sft: supervised fine-tuning by TRL's SFT trainer; the loss counts response tokens only.

Reads pairs (their chosen side, unless `side` says otherwise) or responses, and a model; writes what dpo writes.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from w2s_align.artifacts.artifact import Artifact
from w2s_align.recipe.schema import Reads
from w2s_align.steps.train import TrainStep, rows_of
from w2s_align.steps.work import Work
from w2s_align.training.settings import SFTSettings

DataRef: TypeAlias = Annotated[str, Reads(("pairs", "responses"))]


class Sft(TrainStep, SFTSettings):
    """Fine-tune a model on the chosen responses of pairs, or on generated responses."""

    kind: Literal["sft"] = "sft"
    data: DataRef | Annotated[list[DataRef], Field(min_length=1)]
    """Preference pairs, of which one side is learned, or responses, without those that were cut at their limit; of a
    list of steps, all of their rows together."""

    def run(self, work: Work) -> None:
        """Train, going on from the last checkpoint of an earlier try."""
        from w2s_align.training import train_sft
        from w2s_align.training.formats import responses_as_chats

        left_out: Counter[str] = Counter()

        def read(source: Artifact) -> Any:
            if source.type == "pairs":
                return source.path / "data"
            rows, dropped = responses_as_chats(source.prompts().table(), source.table())
            left_out.update(dropped)
            return rows

        self.fit(work, train_sft, rows_of(work, "data", read), SFTSettings)
        work.counts["rows_in"] += left_out.total()
        dropped: dict[str, Any] = work.counts["dropped"]
        dropped.update({name.removeprefix("dropped_"): count for name, count in left_out.items()})
