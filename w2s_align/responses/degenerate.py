"""Which reasoning traces are degenerate: without a box, with few different words, or going round in circles.

The rule that an independent reproduction of W2SR (arXiv 2505.20072) applied to traces before training on them;
docs/methods/w2sr.md. It says n-gram and not of what: here of words. Reads texts, returns a reason for each.
"""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
from pydantic import Field

from w2s_align.records import Settings

SIZES = (6, 8, 10)
"""Words of the runs that may not repeat themselves at the end of a trace (the source's)."""
NO_BOX, FEW_WORDS, REPEATS = "no box", "few different words", "repeats itself at the end"


class Degenerate(Settings):
    """When a trace is degenerate; the defaults are the published rule."""

    box: bool = True
    r"""A trace without \boxed{...} is degenerate. For answers that are not boxed: false."""
    least_different: float = Field(0.3, ge=0, le=1)
    """Least share of different words of a long trace."""
    long_from: int = Field(200, ge=1)
    """More words than this make a trace long."""
    repeats: int = Field(4, ge=2)
    """A run of 6, 8 or 10 words that often within the tail is a loop."""
    tail: int = Field(800, ge=1)
    """Characters at the end in which loops are looked for."""

    def reason(self, text: str) -> str | None:
        """Return why a trace is degenerate; None where it is not."""
        if self.box and "\\boxed{" not in text:
            return NO_BOX
        words = text.split()
        if len(words) > self.long_from and len({word.casefold() for word in words}) < self.least_different * len(
            words
        ):
            return FEW_WORDS
        last = text[-self.tail :].casefold().split()
        for size in SIZES:
            runs = Counter(zip(*(last[start:] for start in range(size)), strict=False))
            if runs and max(runs.values()) >= self.repeats:
                return REPEATS
        return None


def degenerate_reasons(responses: pa.Table, rule: Degenerate) -> list[str | None]:
    """Return for each response why it is degenerate; None where it is not, or where there is no text to look at.

    Args:
        responses: Rows of :class:`w2s_align.records.Response`; reasoning that was split off belongs to the trace.
        rule: When a trace is degenerate.
    """
    thoughts = responses["reasoning"].to_pylist() if "reasoning" in responses.column_names else []
    thoughts = thoughts or [None] * responses.num_rows
    rows = zip(responses["text"].to_pylist(), thoughts, strict=True)
    return [None if text is None else rule.reason("\n".join(filter(None, (before, text)))) for text, before in rows]
