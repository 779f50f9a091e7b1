"""debate: two copies of a strong model argue about every item, and what they say stands behind the question.

Reads items (and the debater, and the labels of a weak model for market-making); writes data/prompts.parquet
(records.Prompt, with the items' own ids and gold answers) and data/turns.parquet (every turn, with its verdict).
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from w2s_align.artifacts.identity import model_name
from w2s_align.errors import UserError
from w2s_align.generation.debate import DebateSettings
from w2s_align.generation.settings import Engine, Sampling
from w2s_align.recipe.schema import ArtifactType, PromptsRef, Reads, ScoresRef, Seed
from w2s_align.steps.asking import AskingStep
from w2s_align.steps.generate import GenerateResources
from w2s_align.steps.tables import join_tables
from w2s_align.steps.work import Work

if TYPE_CHECKING:
    import pyarrow as pa

    from w2s_align.generation.debate import Debates


class DebateStep(AskingStep, DebateSettings):
    """Let copies of a model argue for opposite verdicts on each item; a weak model then reads item and transcript."""

    kind: Literal["debate"] = "debate"
    model: Annotated[str, Reads(("model",), literal=True, named=True)]
    """The debater: a hub id, a folder, or $step."""
    items: PromptsRef
    """What is argued about. Gold answers are not read."""
    against: ScoresRef | Annotated[list[ScoresRef], Field(min_length=1)] | None = None
    """Labels of a naive weak model, which was not trained on the items: market_making argues for the other class."""
    seeds: list[Seed] | None = Field(None, min_length=1)
    """One transcript of every item for each of these seeds: $debate@1, $debate@2."""
    sampling: Sampling = Sampling(temperature=1, max_tokens=128)
    """How a turn is drawn. Default: ours, for the paper's was not found."""
    reader: Annotated[str, Reads(("model",), literal=True, named=True)] | None = None
    """The model that reads the transcripts: turns are cut so that item and transcript fit `reader_length`."""
    reader_length: int | None = Field(None, ge=16)
    """Longest item with transcript, in the reader's tokens."""
    reader_template: Literal["chat", "plain"] = "chat"
    """How the reader renders items, as its `template` in a classifier."""
    engine: Engine = Engine()
    """Engine, number format, context of the debater; {name: openai} asks a server."""
    resources: GenerateResources = GenerateResources()
    """What the step may use of the machine; changes nothing in what it writes."""

    writes: ClassVar[ArtifactType] = "prompts"

    def check(self) -> None:
        """Refuse options that do not fit together, and what a generation would refuse."""
        if (self.form == "market_making") != (self.against is not None):
            raise UserError(
                "market_making argues against the labels of a weak model, and against names them.",
                why=f"form is {self.form}, and against is {self.against or 'not given'}.",
                fix="Give both: form: market_making and against: $labels; or neither.",
            )
        if (self.reader is None) != (self.reader_length is None):
            raise UserError("reader and reader_length belong together.", fix="Give both, or leave both out.")
        if self.sampling.n != 1:
            raise UserError(
                f"sampling.n is {self.sampling.n}, and a turn is one text.",
                fix="More transcripts: seeds: [1, 2, 3, 4].",
            )
        super().check()

    def run(self, work: Work) -> None:
        """Debate, going on from the turns that an earlier try finished."""
        from w2s_align.generation.debate import debate

        items = work.inputs["items"].table()
        found = debate(
            work.model("model", self.model),
            items,
            DebateSettings.model_validate(self.model_dump(include=set(DebateSettings.model_fields))),
            against=_labels(work) if self.against else None,
            **self.ways(work),
        )
        kept, cut = self._fitted(work, items, found)
        if not kept.num_rows:
            raise UserError(
                f"No item leaves room for a transcript in {self.reader_length} tokens.",
                why="Turns are cut, never the item.",
                fix="Raise reader_length, or leave long items out.",
            )
        work.write(kept, "prompts")
        work.write(_turns(found, model_name(self.model)), "turns")
        dropped = {"item leaves no room": items.num_rows - kept.num_rows} if kept.num_rows < items.num_rows else {}
        counts = found.counts | ({"turns cut for the reader": cut} if cut else {})
        work.counts.update(rows_in=items.num_rows, kept=kept.num_rows, dropped=dropped, **counts)
        total = items.num_rows * self.turns
        if empty := found.counts.get("empty turns"):
            work.warnings.append(f"In {empty} of {total} turns the debater wrote nothing.")
        shutil.rmtree(work.out / "asked", ignore_errors=True)  # every turn stands in turns.parquet

    def _fitted(self, work: Work, items: pa.Table, found: Debates) -> tuple[pa.Table, int]:
        """Return the items with transcripts that fit the reader, and how many turns were cut for it."""
        if self.reader is None or self.reader_length is None:
            return found.items, 0
        from transformers import AutoTokenizer

        from w2s_align.generation.debate import Reader, fit_turns
        from w2s_align.records import Prompt, from_table, to_table

        folder = work.model("reader", self.reader)
        reader = Reader(
            AutoTokenizer.from_pretrained(str(folder), trust_remote_code=self.engine.trust_remote_code),
            chat=self.reader_template == "chat",
        )
        fitted = [
            fit_turns(item, found.transcripts[item.id], self, self.reader_length, reader)
            for item in from_table(Prompt, items)
        ]
        kept = [entry for entry in fitted if entry is not None]
        return to_table([item for item, _ in kept], Prompt), sum(cut for _, cut in kept)


def _labels(work: Work) -> dict[str, str]:
    """Return the most probable class of every labeled item."""
    found = {}
    given = [artifact.table() for place, artifact in work.inputs.items() if place.partition(".")[0] == "against"]
    scores = join_tables(given)
    for key, row in zip(scores["prompt_id"].to_pylist(), scores["probabilities"].to_pylist(), strict=True):
        if row:
            found[key] = max(row, key=lambda one: one["p"])["label"]
    return found


def _turns(found: Debates, model: str) -> pa.Table:
    import pyarrow as pa

    rows = [
        {"prompt_id": key, "turn": number, "speaker": turn.speaker, "verdict": turn.verdict, "text": turn.text}
        for key, turns in found.transcripts.items()
        for number, turn in enumerate(turns, start=1)
    ]
    return pa.Table.from_pylist(rows).append_column("model", pa.array([model] * len(rows)))
