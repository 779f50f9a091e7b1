"""What the steps that make pairs share: evaluation sets to keep out, and the files of an artifact of pairs.

Writes data/train-*.parquet (records.Pair, which is TRL's conversational format), dropped.parquet, lengths.parquet,
audit.html (a page of its own) and README.md (a dataset card).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, TypeAlias

from w2s_align.errors import UserError
from w2s_align.recipe.schema import Reads
from w2s_align.steps.work import Work, in_words

if TYPE_CHECKING:
    import pyarrow as pa

    from w2s_align.pairing import Audit, Pairs
    from w2s_align.pairing.decontaminate import Items

EvaluationRef: TypeAlias = Annotated[str, Reads(("prompts",), named=True)]
"""Prompts of an evaluation set; the step's name is shown beside what was found of it."""

LICENSE_OPTIONS = {"licence": "It is called license.", "generator_licences": "It is called generator_licenses."}
"""What options were called in older recipes."""


def evaluation_items(work: Work, place: str, number: int) -> dict[str, Items]:
    """Return the user turns of evaluation sets that a step names, by the names of their steps.

    Args:
        work: The step at work.
        place: The field that names them, a list of references.
        number: How many there are.
    """
    from w2s_align.pairing.decontaminate import user_texts

    places = [f"{place}.{index}" for index in range(number)]
    return {work.sources[p]: user_texts(work.inputs[p].table()).to_pylist() for p in places}


def write_pairs(
    work: Work,
    pairs: Pairs,
    *,
    gold: pa.Table | None = None,
    license: str | None = None,
    generator_licenses: Mapping[str, str],
) -> None:
    """Audit pairs and write all files of their artifact, with counts and warnings.

    Args:
        work: The step at work.
        pairs: What it made.
        gold: Scores against gold answers, for the audit.
        license: License of the pairs, for the dataset card.
        generator_licenses: Licenses of the models that wrote the responses, as far as the user states them.

    Raises:
        UserError: There are no pairs.
    """
    import pyarrow.parquet as pq

    from w2s_align.interchange import CardFacts, export_pairs

    audit, counts = pairs.audit(gold, generator_licenses), pairs.counts
    if not pairs.table.num_rows:
        lost = counts.dropped.get("response", {})
        cut = 2 * lost.get("truncated", 0) > counts.given.get("response", 0)
        raise UserError(
            f"{work.name} made no pair.",
            why=f"Counts: {in_words(counts.lines())}.",
            fix="Most responses were cut at their limit: raise max_tokens where they are generated."
            if cut
            else "Look at the responses with `w2s show`, loosen the filters, or give more prompts.",
        )
    facts = CardFacts(name=work.name, license=license or "other", generator_licenses=audit.licenses)
    export_pairs(pairs.table, work.out, facts, audit=audit, counts=counts)
    pq.write_table(pairs.dropped, work.out / "dropped.parquet")
    pq.write_table(pairs.lengths, work.out / "lengths.parquet")
    _write_page(work, pairs, audit)
    work.counts.update(
        rows_in=counts.given.get("row", counts.given["prompt"]),
        kept=counts.kept["pair"],
        # Prompts that ended without a pair, and rows that could not be read; a row may hold a prompt again.
        dropped={**counts.dropped.get("row", {}), **counts.dropped.get("prompt", {})},
        detail=counts.to_json(),
    )
    work.result["audit"] = json.loads(json.dumps(audit.to_json()))
    work.warnings += audit.warnings


def _write_page(work: Work, pairs: Pairs, audit: Audit) -> None:
    from w2s_align.reporting.audit_page import AuditPage, write_audit_page

    page = AuditPage.of(work.name, audit, pairs.table, pairs.lengths, pairs.counts.totals())
    write_audit_page(page, work.out / "audit.html")
