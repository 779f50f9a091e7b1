"""import_pairs: preference data of another tool, from a file, a folder or the hub, through our filters and audit.

Writes the files of an artifact of pairs (see pair_files.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from w2s_align.artifacts.identity import file_digest, hub_revision, looks_local
from w2s_align.errors import UserError
from w2s_align.pairing import Control, Filters
from w2s_align.recipe.schema import ArtifactType, Resources
from w2s_align.steps.local_files import beside_the_recipe
from w2s_align.steps.pair_files import LICENSE_OPTIONS, EvaluationRef, evaluation_items, write_pairs
from w2s_align.steps.step import Step
from w2s_align.steps.work import Work


class ImportPairs(Step):
    """Read preference pairs, ratings, comparisons or labels that another tool made."""

    kind: Literal["import_pairs"] = "import_pairs"
    source: str
    """A file (.jsonl, .json, .csv, .tsv, .parquet), a folder of such files, or a dataset id on the hub. Cells of a CSV
    are texts, as they stand there."""
    split: str = "train"
    """Split of a hub dataset."""
    config: str | None = None
    """Configuration of a hub dataset."""
    revision: str | None = None
    """Commit, tag or branch of a hub dataset."""
    data_dir: str | None = None
    """Folder of a hub dataset that holds several sets: harmless-base or helpful-base of Anthropic/hh-rlhf."""
    layout: Literal["auto", "pairs", "ratings", "labels", "compared"] = "auto"
    """pairs: chosen and rejected (TRL with explicit or implicit prompt, UltraFeedback-binarized, ShareGPT ranking,
    Argilla, HH-RLHF). ratings: several responses with a number each (distilabel, UltraFeedback). labels: one response
    that is good or bad (TRL unpaired, KTO). compared: two responses and which is better (PKU-SafeRLHF by helpfulness,
    or by safety with columns: {winner: safer_response_id}; Chatbot Arena); ties are counted and left out. auto: told
    from the columns."""
    columns: dict[str, str] = {}
    """Which column holds what, where its name is not a usual one: {prompt: question, chosen: good, rejected: bad}."""
    rule: Literal["best_worst", "best_random", "score_gap"] = "best_worst"
    """How ratings become pairs: best over worst, best over a random other (Tülu 3), or every gap, largest first."""
    margin: float = Field(0.0, ge=0)
    """Least difference of two ratings (best_worst, score_gap)."""
    turns: Literal["last", "all"] = "last"
    """What a response is. last: the assistant's last turn; rows whose chats differ earlier are counted and left out.
    all: every turn after what both chats share, with those of tools and users in it; lengths and text filters are of
    what the assistant says, and trainings learn that alone."""
    limit: int | None = Field(None, ge=1)
    """Read this many rows."""
    on_broken: Literal["drop", "stop"] = "drop"
    """What to do with a row that cannot be read: count it with its line number and reason, or stop there."""
    task: str | None = None
    """Name of the task, for the audit. Default: the column task or source, where there is one."""
    control: Control = "none"
    """reversed: chosen and rejected swapped. tied: both sides of equal quality. shuffled: labels by coin."""
    filters: Filters = Filters()
    """What is dropped."""
    decontaminate: list[EvaluationRef] = []
    """Prompts of evaluation sets: pairs of prompts that contain more than half the words of an item, in runs of 8
    words (the rule of Tülu 3), are dropped. Where a language has no spaces (Chinese, Japanese, Thai, Lao, Khmer,
    Burmese), each letter is a word; inflected forms and translations are not recognized in any language."""
    pairs_per_prompt: int | None = Field(None, ge=1)
    """At most this many pairs of one prompt. Default: all that the data has (of ratings: one)."""
    license: str | None = None
    """License of the pairs, for the dataset card."""
    generator_licenses: dict[str, str] = {}
    """License of models that wrote responses, by name, for audit and dataset card. Default: what their cards say."""
    resources: Resources = Resources(gpus=0)
    """What the step may use of the machine."""

    writes: ClassVar[ArtifactType] = "pairs"
    version: ClassVar[int] = 3
    renamed: ClassVar[Mapping[str, str]] = LICENSE_OPTIONS

    @field_validator("source")
    @classmethod
    def _beside_the_recipe(cls, source: str, info: ValidationInfo) -> str:
        """Find a file or folder beside the recipe when there is none in the current folder."""
        return beside_the_recipe(source, info, folders=True)

    def content(self) -> dict[str, Any]:
        """Leave out where files lie: their digest says the content."""
        path = Path(self.source).expanduser()
        content = super().content() | ({"source": path.name} if path.exists() else {})
        if self.turns == "last":  # the option came later: what it does not change keeps its key
            del content["turns"]
        if self.data_dir is None:  # an option that came later: what was made without it stays valid
            del content["data_dir"]
        return content

    def check(self) -> None:
        """Refuse a source that is not there, and options that the layout does not take."""
        path = Path(self.source).expanduser()
        if not path.exists() and (
            looks_local(self.source) or path.suffix in (".jsonl", ".json", ".csv", ".tsv", ".parquet")
        ):
            raise UserError(
                f"The file or folder {self.source} does not exist.",
                fix="Paths are relative to the current folder, or to the recipe's.",
            )
        if path.exists():
            from w2s_align.interchange.readers import data_files

            data_files(path)
            self.notes()
        if self.layout not in ("auto", "ratings") and (self.rule != "best_worst" or self.margin):
            raise UserError(
                f"The layout {self.layout} takes no rule and no margin.",
                fix="They are for ratings; filters.min_delta drops pairs with a small difference of scores.",
            )
        if self.rule == "best_random" and self.margin:
            raise UserError("The rule best_random does not take margin.", fix="It belongs to best_worst, score_gap.")
        if self.turns == "all" and self.layout == "ratings":
            raise UserError("The layout ratings takes no turns.", fix="Its responses are texts: leave turns out.")

    def notes(self) -> list[str]:
        """Say which columns of local data are not read.

        Raises:
            UserError: It cannot be read, or no layout fits its columns.
        """
        path = Path(self.source).expanduser()
        if not path.exists():
            return []
        from w2s_align.interchange.pair_import import glance_at_pairs

        unread = glance_at_pairs(path, None if self.layout == "auto" else self.layout, self.columns)
        said = f"Columns of {path.name} that are not read: {', '.join(unread)}. The option columns maps them."
        return [said] if unread else []

    def identity(self) -> dict[str, Any]:
        """Return the digest of local files, or the revision of a hub dataset."""
        path = Path(self.source).expanduser()
        if not path.exists():
            return {"revision": hub_revision(self.source, "dataset", self.revision)}
        from w2s_align.interchange.readers import data_files

        digests = [file_digest(file) for file in data_files(path)]
        return {"files": hashlib.sha256("\n".join(digests).encode()).hexdigest()}

    def process(self) -> str | None:
        """Share a process with other steps that only handle rows: starting one takes longer than a small table."""
        return "rows"

    def run(self, work: Work) -> None:
        """Read, filter, audit and write the pairs."""
        from w2s_align.interchange import import_pairs
        from w2s_align.interchange.pair_import import USE_ALL_TURNS
        from w2s_align.interchange.pair_responses import SEVERAL_TURNS
        from w2s_align.interchange.readers import broken_in_words

        per_prompt = {} if self.pairs_per_prompt is None else {"pairs_per_prompt": self.pairs_per_prompt}
        pairs = import_pairs(
            Path(self.source).expanduser() if Path(self.source).expanduser().exists() else self.source,
            layout=None if self.layout == "auto" else self.layout,
            columns=self.columns,
            rule=self.rule,
            margin=self.margin,
            turns=self.turns,
            split=self.split,
            config_name=self.config,
            revision=self.revision,
            data_dir=self.data_dir,
            limit=self.limit,
            stop_on_broken=self.on_broken == "stop",
            task=self.task,
            progress=lambda rows, note: work.progress(rows, max(rows, self.limit or 0), f"rows read {note}".strip()),
            filters=self.filters,
            control=self.control,
            seed=self.seed or 0,
            evaluations=evaluation_items(work, "decontaminate", len(self.decontaminate)),
            **per_prompt,
        )
        lost = pairs.dropped.slice(0, pairs.counts.lost("row"))  # the rows that cannot be read come first
        broken = list(zip(lost["detail"].to_pylist(), lost["reason"].to_pylist(), strict=True))
        if broken:
            work.warnings.append(broken_in_words(pairs.counts.given["row"], broken))
            if self.turns == "last" and {reason for _, reason in broken} & set(SEVERAL_TURNS):
                work.warnings.append(USE_ALL_TURNS)
        if pairs.counts.noticed:
            noticed = "; ".join(f"{number:,} with {what}" for what, number in pairs.counts.noticed.items())
            work.warnings.append(f"Of {pairs.counts.given['row']:,} rows: {noticed}.")
        write_pairs(work, pairs, license=self.license, generator_licenses=self.generator_licenses)
