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
    licence: str | None = None,
    generator_licences: Mapping[str, str],
) -> None:
    """Audit pairs and write all files of their artifact, with counts and warnings.

    Raises:
        UserError: There are no pairs.
    """
    import pyarrow.parquet as pq

    from w2s_align.pairing import CardFacts, export_pairs

    audit = pairs.audit(gold, generator_licences)
    if not pairs.table.num_rows:
        raise UserError(
            f"{work.name} made no pair.",
            why=f"Counts: {in_words(pairs.counts)}.",
            fix="Look at the responses with `w2s show`, loosen the filters, or give more prompts.",
        )
    facts = CardFacts(name=work.name, license=licence or "other", generator_licenses=audit.licences)
    export_pairs(pairs.table, work.out, facts, audit=audit, counts=pairs.counts)
    pq.write_table(pairs.dropped, work.out / "dropped.parquet")
    pq.write_table(pairs.lengths, work.out / "lengths.parquet")
    _write_page(work, pairs, audit)
    rows_in = pairs.counts.get("rows", pairs.counts["prompts"])
    work.counts.update(rows_in=rows_in, kept=pairs.counts["pairs"], dropped=_dropped(pairs.counts))
    work.counts["detail"] = pairs.counts
    work.result["audit"] = json.loads(json.dumps(audit.to_json()))
    work.warnings += audit.warnings


def _write_page(work: Work, pairs: Pairs, audit: Audit) -> None:
    from w2s_align.reporting.audit_page import AuditPage, write_audit_page

    page = AuditPage.of(work.name, audit, pairs.table, pairs.lengths, pairs.counts)
    write_audit_page(page, work.out / "audit.html")


def _dropped(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the prompts that ended without a pair and the rows that could not be read, by reason."""
    found: dict[str, int] = {}
    for prefix in ("rows dropped: ", "prompts dropped: "):
        found |= {name.removeprefix(prefix): n for name, n in counts.items() if name.startswith(prefix)}
    return found
