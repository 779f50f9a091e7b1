"""The audit of pairs as text: the table that a terminal or a log shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from w2s_align.pairing.audit import Audit


def describe(audit: Audit) -> str:
    """Return the audit as a few aligned lines of plain text, warnings first."""
    lines = [f"warning: {warning}" for warning in audit.warnings]
    lines.append(_row("pairs", f"{audit.pairs:,} on {audit.prompts:,} prompts"))
    delta = audit.delta
    if delta:
        interval = f"({delta['low']:.3g} to {delta['high']:.3g})"
        quantiles = "  ".join(f"{name} %: {value:.3g}" for name, value in delta["quantiles"].items())
        lines.append(_row("delta", f"mean {delta['mean']:.3g} {interval}, {delta['positive']:.1%} above 0"))
        lines.append(_row("", quantiles))
    for unit, facts in audit.lengths.items():
        lines.append(
            _row(
                unit,
                f"chosen {facts['chosen_mean']:.0f}, rejected {facts['rejected_mean']:.0f} on average; "
                f"longer wins {facts['longer_wins']:.1%}; length alone: AUC {facts['auc']:.2f}",
            )
        )
    for name, counts in (("gold", audit.gold), ("sources", audit.sources), ("tasks", audit.tasks)):
        if counts:
            lines.append(
                _row(name, "; ".join(f"{key or '(none)'} {count:,}" for key, count in list(counts.items())[:8]))
            )
    for name, entry in audit.dropped.items():
        lines.append(_row("dropped", f"{name} {entry['rows']:,}, e.g. {entry['examples'][0]}"))
    return "\n".join(lines)


def _row(name: str, text: str) -> str:
    return f"{name:<10}{text}"
