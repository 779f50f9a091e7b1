"""export: pairs or chats as a dataset folder for other tools, and on the hub when asked.

Reads pairs or chats; writes data/train-*.parquet in one of TRL's formats and README.md (a dataset card).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from w2s_align.errors import UserError
from w2s_align.recipe.schema import ArtifactType, Reads, Resources, StepConfig
from w2s_align.steps.pair_files import LICENSE_OPTIONS
from w2s_align.steps.step import Step
from w2s_align.steps.work import Work


class Export(Step):
    """Write pairs or chats in a format of TRL with a dataset card, and push them to the hub when asked."""

    kind: Literal["export"] = "export"
    pairs: Annotated[str, Reads(("pairs", "chats"))]
    """What is written: pairs, or chats of import_chats, which take the format sft."""
    format: Literal["preference", "unpaired", "sft"] = "preference"
    """preference: prompt, chosen, rejected (DPO). unpaired: prompt, completion, label (KTO). sft: messages."""
    side: Literal["chosen", "rejected"] = "chosen"
    """Which side sft shows."""
    title: str | None = None
    """Title of the dataset card. Default: the step's name."""
    language: list[str] = []
    """Languages as ISO 639-1 codes, for the card."""
    license: str | None = None
    """License of the dataset, as the hub writes it, e.g. apache-2.0. Default: that of the pairs."""
    push_to_hub: str | None = None
    """Dataset on the hub (owner/name) to push to, with the token in HF_TOKEN or of `hf auth login`."""
    private: bool = True
    """Whether the dataset on the hub is for its owner only."""
    resources: Resources = Resources(cpus=1, gpus=0)
    """What the step may use of the machine."""

    writes: ClassVar[ArtifactType] = "dataset"
    uses_seed: ClassVar[bool] = False
    renamed: ClassVar[Mapping[str, str]] = LICENSE_OPTIONS

    def check(self) -> None:
        """Refuse a side without sft, and a push without a token."""
        if self.side != "chosen" and self.format != "sft":
            raise UserError(f"The format {self.format} has no side.", fix="side belongs to format: sft.")
        if self.push_to_hub is not None:
            from w2s_align.hub import check_push

            check_push(self.push_to_hub)

    def check_among(self, steps: Mapping[str, StepConfig]) -> None:
        """Refuse chats in a format of pairs."""
        source = steps.get(self.pairs.removeprefix("$"))
        if source is not None and source.writes == "chats" and self.format != "sft":
            raise UserError(
                f"{self.pairs} writes chats, which have no chosen and no rejected side.", fix="Set format: sft."
            )

    def run(self, work: Work) -> None:
        """Write the folder, then push it."""
        if work.inputs["pairs"].type == "chats":
            self._write_chats(work)
        else:
            self._write_pairs(work)
        if self.push_to_hub is not None:
            from w2s_align.hub import push_folder

            files = ["data/*.parquet", "README.md"]
            work.result["pushed"] = push_folder(
                work.out, self.push_to_hub, "dataset", private=self.private, files=files, message="Upload data"
            )

    def _write_chats(self, work: Work) -> None:
        from w2s_align.interchange.pair_export import CardFacts, export_chats

        chats = work.inputs["pairs"]
        facts = CardFacts(name=self.title or work.name, license=self.license or "other", language=self.language)
        dropped = {f"left out: {reason}": number for reason, number in chats.manifest["counts"]["dropped"].items()}
        roles = {f"messages of the {role}": number for role, number in chats.manifest["result"]["roles"].items()}
        table = chats.table("chats")
        export_chats(table, work.out, facts, counts={"chats": table.num_rows, **roles, **dropped})
        work.counts.update(rows_in=table.num_rows, kept=table.num_rows)

    def _write_pairs(self, work: Work) -> None:
        from w2s_align.interchange import CardFacts, export_pairs
        from w2s_align.pairing import Audit, Counts

        pairs = work.inputs["pairs"]
        audit = Audit.from_json(pairs.manifest["result"]["audit"])
        facts = CardFacts(
            name=self.title or work.name,
            license=self.license or pairs.manifest["options"].get("license") or "other",
            generator_licenses=audit.licenses,
            language=self.language,
            made_by=f"By a step of kind `{pairs.kind}` of w2s-align.",
        )
        table = pairs.table("train")
        counts = Counts.from_json(pairs.manifest["counts"]["detail"])
        export_pairs(table, work.out, facts, audit=audit, counts=counts, format=self.format, side=self.side)
        work.counts.update(rows_in=table.num_rows, kept=table.num_rows * (2 if self.format == "unpaired" else 1))
