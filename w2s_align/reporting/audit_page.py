"""The page about one set of preference pairs: how large and how clean the delta is, and what else could be learned.

Reads plain values (the audit as JSON, tables of pairs and lengths), writes one HTML file that loads nothing from any
network. Every text is escaped, and a content security policy allows no script and no request at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s_align.reporting.data import PairAudit
from w2s_align.reporting.page import template
from w2s_align.reporting.plots import pairs_plot
from w2s_align.reporting.text import MINUS, percent, unbroken

if TYPE_CHECKING:
    import pyarrow as pa

AT_RANDOM, EXTREME = 8, 3
"""Pairs shown: so many spread over the whole table, and so many of each extreme."""
TEXT_CHARS = 4000
MOST_ROWS = 30
"""Lines of a table of sources or tasks; the rest is summed up in the last one."""


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
        name: Name of the pairs, e.g. the step that made them.
        audit: ``w2s_align.pairing.Audit.to_json()``.
        rule: The rule (or rules) that made them.
        drawn: The lengths and deltas of the drawing.
        counts: What was kept and dropped, in the order in which it happened.
        samples: Pairs to look at, under the name of what they were picked for.
    """

    name: str
    audit: Mapping[str, Any]
    rule: str
    drawn: PairAudit
    counts: Mapping[str, int] = field(default_factory=dict)
    samples: Mapping[str, Sequence[PairSample]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        name: str,
        audit: Mapping[str, Any],
        pairs: pa.Table,
        lengths: pa.Table,
        counts: Mapping[str, int],
        most_drawn: int = 20_000,
    ) -> AuditPage:
        """Pick from tables of pairs and their lengths what the page shows.

        Args:
            name: Name of the pairs.
            audit: The audit as plain values.
            pairs: Rows of :class:`w2s_align.records.Pair`.
            lengths: Lengths of both sides in ``chars`` and ``tokens``, row by row.
            counts: What was kept and dropped.
            most_drawn: Draw at most this many pairs, spread over the table.
        """
        import pyarrow as pa

        known = not (lengths["chosen_tokens"].null_count or lengths["rejected_tokens"].null_count)
        unit = "tokens" if known else "chars"
        rows = pa.array(_spread(pairs.num_rows, most_drawn), pa.int64())
        drawn = PairAudit.of(
            name,
            audit,
            deltas=pairs["delta"].take(rows).drop_null().to_pylist(),
            chosen_lengths=lengths[f"chosen_{unit}"].take(rows).to_pylist(),
            rejected_lengths=lengths[f"rejected_{unit}"].take(rows).to_pylist(),
            length_unit="tokens" if known else "characters",
        )
        picked = _pick(pairs, lengths, unit)
        samples = {title: _samples(pairs, lengths, unit, rows) for title, rows in picked.items()}
        rules = ", ".join(sorted(pairs["rule"].unique().to_pylist()))
        return cls(name, audit, rules, drawn, counts, samples)


def write_audit_page(page: AuditPage, path: Path) -> Path:
    """Write the page as one HTML file.

    Args:
        page: What it shows.
        path: The file; replaced as a whole.
    """
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(render_audit_page(page), encoding="utf-8", errors="replace")
    partial.replace(path)
    return path


def render_audit_page(page: AuditPage) -> str:
    """Return the HTML of the page; without matplotlib it has no drawing, and says so."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters.update(percent=percent, unbroken=unbroken, number=_number)
    drawable = find_spec("matplotlib") is not None
    audit = page.audit
    return environment.from_string(template("audit.html.j2")).render(
        page=page,
        audit=audit,
        unit="tokens" if "tokens" in audit["lengths"] else "chars",
        drawable=drawable,
        plot=pairs_plot(page.drawn) if drawable else None,
        sources=_shares(audit["sources"]),
        tasks=_shares({task or "(none)": number for task, number in audit["tasks"].items()}),
        gold=_shares(audit["gold"]),
        style=template("page.css"),
    )


def _number(value: float | None, signed: bool = False) -> str:
    """Return a number for people: three digits that count, thousands with commas, a real minus."""
    if value is None:
        return "\N{EN DASH}"
    text = f"{value:+,.3g}" if signed else f"{value:,.3g}"
    if abs(value) >= 1000:
        text = f"{value:+,.0f}" if signed else f"{value:,.0f}"
    return text.replace("-", MINUS)


def _shares(counts: Mapping[str, int]) -> list[tuple[str, int, float]]:
    """Return names with their counts and shares; what is beyond :data:`MOST_ROWS` is one line."""
    total = sum(counts.values()) or 1
    rows = [(name, number, number / total) for name, number in counts.items()]
    if len(rows) > MOST_ROWS:
        rest = sum(number for _, number, _ in rows[MOST_ROWS - 1 :])
        rows = [*rows[: MOST_ROWS - 1], (f"{len(rows) - MOST_ROWS + 1} others", rest, rest / total)]
    return rows


def _spread(total: int, wanted: int) -> list[int]:
    """Return row numbers spread evenly over a table."""
    if total <= wanted:
        return list(range(total))
    return [number * total // wanted for number in range(wanted)]


def _pick(pairs: pa.Table, lengths: pa.Table, unit: str) -> dict[str, list[int]]:
    """Return the rows to show: some of the whole table, and the extremes of delta and length."""
    import pyarrow.compute as pc

    picked = {"Spread over all pairs": _spread(pairs.num_rows, AT_RANDOM)}
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
    turns = pair["prompt"]
    names = len(turns) > 1
    yield "prompt", _cut("\n\n".join(f"{t['role']}: {t['content']}" if names else t["content"] for t in turns))
    for side in ("chosen", "rejected"):
        score = pair[f"score_{side}"]
        notes = [pair[f"{side}_model"], f"{size[f'{side}_{unit}']:,} {'tokens' if unit == 'tokens' else 'characters'}"]
        yield side, _cut(pair[side][-1]["content"])
        yield f"{side}_note", ", ".join(notes + ([] if score is None else [f"score {_number(score)}"]))


def _cut(text: str) -> str:
    left = len(text) - TEXT_CHARS
    return text if left <= 0 else f"{text[:TEXT_CHARS]}\n[{left:,} more characters]"
