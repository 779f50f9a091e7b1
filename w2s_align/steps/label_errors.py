"""label_errors: pairs whose sides are probably the wrong way round, by an ensemble of judges and scorers.

Reads pairs, and the verdicts or scores of the ensemble on their responses; writes the files of an artifact of pairs
(see pair_files.py), flags.parquet (the ensemble's probability for every pair) and checks.parquet (pairs for people).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from w2s_align.artifacts.artifact import Artifact
from w2s_align.errors import UserError
from w2s_align.pairing.label_errors import Action
from w2s_align.recipe.schema import ArtifactType, PairsRef, Resources, ScoresRef
from w2s_align.steps.pair_files import write_pairs
from w2s_align.steps.step import Step
from w2s_align.steps.tables import behind
from w2s_align.steps.work import Work

if TYPE_CHECKING:
    import pyarrow as pa

    from w2s_align.pairing import Pairs
    from w2s_align.pairing.label_errors import LabelErrors


class LabelErrorsStep(Step):
    """Flag pairs with which an ensemble of judges disagrees, and drop or flip them."""

    kind: Literal["label_errors"] = "label_errors"
    pairs: PairsRef
    """The pairs to look through."""
    ensemble: list[ScoresRef] = Field(min_length=1)
    """Judges (mode pairwise or verdict) and scores that are probabilities (of combine), over the same responses. None
    of them may have made the pairs."""
    threshold: float = Field(0.8, ge=0.5, le=1)
    """Least confidence of a flag: the ensemble's mean probability that the rejected response is the better one."""
    action: Action = "none"
    """What becomes of flagged pairs. none: they are only listed. At a low threshold drop, at a middle one flip."""
    to_check: int = Field(50, ge=0)
    """Flagged pairs, and as many others, that are drawn for people to check (checks.parquet)."""
    license: str | None = None
    """License of the pairs, for the dataset card; the generators' licenses decide."""
    generator_licenses: dict[str, str] = {}
    """License of models that wrote responses, by name, for audit and dataset card. Default: what their cards say."""
    resources: Resources = Resources(cpus=1, gpus=0)
    """What the step may use of the machine."""

    writes: ClassVar[ArtifactType] = "pairs"

    def process(self) -> str | None:
        """Share a process with other steps that only handle rows: starting one takes longer than a small table."""
        return "rows"

    def run(self, work: Work) -> None:
        """Ask the ensemble, act, and write the pairs with what was found."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.parquet as pq

        from w2s_align.pairing.label_errors import act, find_label_errors, sample_to_check

        source = work.inputs["pairs"]
        pairs = source.table()
        self._refuse_own_judge(work, source)
        found = find_label_errors([self._member(work, i, pairs) for i in range(len(self.ensemble))], self.threshold)
        if found.unknown == pairs.num_rows:
            raise UserError(
                "The ensemble judged none of these pairs.",
                why="Its scores are for other responses.",
                fix="Let the judges see the responses that the pairs were made of.",
            )
        kept, rows = act(pairs, found.flagged, self.action)
        write_pairs(
            work,
            _as_pairs(pairs, kept, found, self.action, pq.read_table(source.path / "lengths.parquet"), rows),
            license=self.license,
            generator_licenses=self.generator_licenses,
        )
        flags = {"prompt_id": pairs["prompt_id"], "p_chosen": found.p_chosen, "flagged": found.flagged}
        pq.write_table(pa.table(flags), work.out / "flags.parquet")
        if self.to_check:
            checks = sample_to_check(found, pairs, self.to_check, self.seed or 0)
            pq.write_table(checks, work.out / "checks.parquet")
        work.result["label_errors"] = found.to_json()
        share = found.unknown / pairs.num_rows
        if share > 0.1:
            work.warnings.append(f"{100 * share:.0f}% of the pairs were judged by no member of the ensemble.")
        if len(self.ensemble) == 1:
            work.warnings.append("One judge is no ensemble: its own mistakes are flagged as well.")
        if np.mean(found.flagged) > 0.3:
            work.warnings.append(
                f"{100 * np.mean(found.flagged):.0f}% of the pairs are flagged: check some of checks.parquet by hand "
                "before you believe the ensemble."
            )

    def _member(self, work: Work, index: int, pairs: pa.Table) -> pa.Array:
        from w2s_align.pairing.label_errors import by_judge, by_scores

        artifact = work.inputs[f"ensemble.{index}"]
        if _compares(artifact):
            return by_judge(pairs, artifact.table("verdicts"))
        return by_scores(pairs, artifact.table())

    def _refuse_own_judge(self, work: Work, pairs: Artifact) -> None:
        """Refuse a member that the pairs were made with: it would find its own labels right.

        Raises:
            UserError: See above.
        """
        makers = {artifact.key: artifact for artifact in behind(pairs) if artifact.type == "scores"}
        names = {name for artifact in makers.values() for name in artifact.table()["scorer"].unique().to_pylist()}
        for index in range(len(self.ensemble)):
            member = work.inputs[f"ensemble.{index}"]
            own = names & set(member.table()["scorer"].unique().to_pylist())
            if member.key in makers or own:
                raise UserError(
                    f"{self.ensemble[index]} made these pairs: {', '.join(sorted(own)) or member.kind}.",
                    why="A judge that is asked again agrees with itself, whether it is right or not.",
                    fix="Use judges that had no part in the pairs.",
                )


def _compares(artifact: Artifact) -> bool:
    """Return whether scores come with verdicts on two responses side by side."""
    options = artifact.manifest.get("material", {}).get("options", {})
    return artifact.kind == "judge" and options.get("mode") == "pairwise"


def _as_pairs(
    given: pa.Table, kept: pa.Table, found: LabelErrors, action: Action, lengths: pa.Table, rows: pa.Array
) -> Pairs:
    """Return the pairs that are left with lengths, counts, and the list of those that were dropped."""
    import numpy as np
    import pyarrow as pa

    from w2s_align.pairing import Counts, Pairs
    from w2s_align.pairing.assemble import LENGTHS
    from w2s_align.pairing.dropped import DROPPED

    left = lengths.take(pa.array(rows))
    if action == "flip":
        turned = left.select([1, 0, 3, 2]).rename_columns(LENGTHS.names)
        both = pa.concat_tables([left, turned])
        left = both.take(pa.array(np.where(found.flagged, np.arange(len(rows)) + len(rows), np.arange(len(rows)))))
    lost = np.flatnonzero(found.flagged) if action == "drop" else np.array([], np.int64)
    dropped = {
        "prompt_id": given["prompt_id"].take(pa.array(lost, pa.int64())),
        "unit": ["pair"] * len(lost),
        "reason": ["label error"] * len(lost),
        "detail": [f"P(chosen is better) = {found.p_chosen[row]:.2f}" for row in lost],
        "excerpt": pa.nulls(len(lost), pa.string()),
    }
    prompts = len(given["prompt_id"].unique())
    counts = Counts(
        given={"prompt": prompts, "pair": given.num_rows},
        kept={"prompt": len(kept["prompt_id"].unique()), "pair": kept.num_rows},
        dropped={"pair": {"label error": len(lost)}} if len(lost) else {},
    )
    tasks = pa.chunked_array([pa.array([""] * kept.num_rows, pa.string())])
    return Pairs(kept, pa.table(dropped).cast(DROPPED), counts, left.cast(LENGTHS), tasks)
