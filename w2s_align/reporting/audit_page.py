"""The page about one set of preference pairs: how large and how clean the delta is, and what else could be learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s_align.records import turns_text
from w2s_align.reporting.data import PairAudit, spread
from w2s_align.reporting.page import render, replace_text
from w2s_align.reporting.pair_plots import pairs_plot
from w2s_align.reporting.text import length_name, number

if TYPE_CHECKING:
    import pyarrow as pa

    from w2s_align.pairing import Audit

AT_RANDOM, EXTREME = 8, 3
"""Pairs to read: so many spread over the whole table, and so many of each extreme: what a reader takes in at once."""
TEXT_CHARS = 4000
"""Longest text of one response, so that a page of 20 pairs stays below 200 kB; what is cut says so."""
MOST_ROWS = 30
"""Lines of a table of sources or tasks: about a screen; the rest is summed up in the last one."""


@dataclass(frozen=True)
class PairSample:
    """One pair as a reader sees it. All texts are untrusted.

    Attributes:
        prompt: The prompt's turns, with their roles.
        chosen: The better response.
        rejected: The worse response.
        chosen_note: Who wrote the chosen response, how long it is, its score.
        rejected_note: The same of the rejected one.
    """

    prompt: str
    chosen: str
    rejected: str
    chosen_note: str
    rejected_note: str


@dataclass(frozen=True)
class AuditPage:
    """What the page shows.

    Attributes:
        pairs: The pairs with their audit.
        counts: What was kept and dropped, in the order in which it happened.
        samples: Pairs to look at, under the name of what they were picked for.
    """

    pairs: PairAudit
    counts: Mapping[str, int] = field(default_factory=dict)
    samples: Mapping[str, Sequence[PairSample]] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, audit: Audit, pairs: pa.Table, lengths: pa.Table, counts: Mapping[str, int]) -> AuditPage:
        """Pick from tables of pairs and their lengths what the page shows.

        Args:
            name: Name of the pairs.
            audit: Their audit.
            pairs: Rows of :class:`w2s_align.records.Pair`.
            lengths: Lengths of both sides in ``chars`` and ``tokens``, row by row.
            counts: What was kept and dropped.
        """
        drawn = PairAudit.of(name, audit, pairs, lengths)
        picked = _pick(pairs, lengths, drawn.length_unit)
        samples = {title: _samples(pairs, lengths, drawn.length_unit, rows) for title, rows in picked.items()}
        return cls(drawn, counts, samples)


def write_audit_page(page: AuditPage, path: Path) -> Path:
    """Write the page as one HTML file.

    Args:
        page: What it shows.
        path: The file; replaced as a whole.
    """
    return replace_text(path, render_audit_page(page))


def render_audit_page(page: AuditPage) -> str:
    """Return the HTML of the page; without matplotlib it has no drawing, and says so."""
    drawable = find_spec("matplotlib") is not None
    audit = page.pairs.audit
    gold, sources = _shares(audit.gold), _shares(audit.sources)
    tasks = _shares({task or "(none)": n for task, n in audit.tasks.items()})
    parts = [
        (True, "delta", "Delta and length"),
        (gold or sources or tasks, "content", "Gold, sources, tasks"),
        (True, "licenses", "Licenses"),
        (audit.contamination, "leaks", "Evaluation sets"),
        (True, "rows", "Kept and dropped"),
        (page.samples, "samples", "Examples"),
    ]
    return render(
        "audit.html.j2",
        parts=[(id_, title) for present, id_, title in parts if present],
        caveats=audit.warnings,
        page=page,
        audit=audit,
        size=page.pairs.lengths,
        quantiles=[f"{q}%" for q in audit.delta.get("quantiles", ())],
        drawable=drawable,
        plot=pairs_plot(page.pairs) if drawable else None,
        sources=sources,
        tasks=tasks,
        gold=gold,
    )


def _shares(counts: Mapping[str, int]) -> list[tuple[str, int, float]]:
    """Return names with their counts and shares; what is beyond :data:`MOST_ROWS` is one line."""
    total = sum(counts.values()) or 1
    rows = [(name, n, n / total) for name, n in counts.items()]
    if len(rows) > MOST_ROWS:
        rest = sum(n for _, n, _ in rows[MOST_ROWS - 1 :])
        rows = [*rows[: MOST_ROWS - 1], (f"{len(rows) - MOST_ROWS + 1} others", rest, rest / total)]
    return rows


def _pick(pairs: pa.Table, lengths: pa.Table, unit: str) -> dict[str, list[int]]:
    """Return the rows to show: some of the whole table, and the extremes of delta and length."""
    import pyarrow.compute as pc

    picked = {"Spread over all pairs": spread(pairs.num_rows, AT_RANDOM)}
    if pairs.num_rows <= AT_RANDOM:
        return picked
    gap = pc.abs(pc.subtract(lengths[f"chosen_{unit}"], lengths[f"rejected_{unit}"]))
    picked["Largest gap of length"] = pc.top_k_unstable(pc.fill_null(gap, 0), EXTREME).to_pylist()
    if pairs["delta"].null_count == 0:
        picked["Smallest delta"] = pc.bottom_k_unstable(pairs["delta"], EXTREME).to_pylist()
        picked["Largest delta"] = pc.top_k_unstable(pairs["delta"], EXTREME).to_pylist()
    return picked


def _samples(pairs: pa.Table, lengths: pa.Table, unit: str, rows: list[int]) -> list[PairSample]:
    import pyarrow as pa

    index = pa.array(rows, pa.int64())
    found = zip(pairs.take(index).to_pylist(), lengths.take(index).to_pylist(), strict=True)
    return [PairSample(**dict(_sides(pair, size, unit))) for pair, size in found]


def _sides(pair: Mapping[str, Any], size: Mapping[str, Any], unit: str) -> Iterator[tuple[str, str]]:
    yield "prompt", _cut(turns_text(pair["prompt"]))
    for side in ("chosen", "rejected"):
        score = pair[f"score_{side}"]
        notes = [pair[f"{side}_model"], f"{size[f'{side}_{unit}']:,} {length_name(unit)}"]
        yield side, _cut(turns_text(pair[side]))
        yield f"{side}_note", ", ".join(notes + ([] if score is None else [f"score {number(score)}"]))


def _cut(text: str) -> str:
    left = len(text) - TEXT_CHARS
    return text if left <= 0 else f"{text[:TEXT_CHARS]}\n[{left:,} more characters]"
