"""Cut responses to k sentences: pairs of k over k - 1 differ in one countable property and nothing else.

The controlled experiment of the delta learning paper (https://arxiv.org/abs/2507.06187, section 3;
docs/methods/delta_learning.md) with sentences instead of bold sections. Reads and returns a table of
``Response.SCHEMA``.
"""

from __future__ import annotations

from collections import Counter

import pyarrow as pa

from w2s_align.errors import UserError
from w2s_align.records import Response
from w2s_align.scoring.sentences import first_sentences


def cut_to_sentences(responses: pa.Table, sentences: int) -> tuple[pa.Table, dict[str, int]]:
    """Cut every response to its first sentences.

    A cut response ends by itself (``finish_reason`` is ``stop``) and no longer knows its length in tokens.

    Args:
        responses: Rows of :class:`w2s_align.records.Response`.
        sentences: How many are kept.

    Returns:
        The cut responses, and how many were left out by reason.

    Raises:
        UserError: No response is long enough.
    """
    texts = [None if text is None else first_sentences(text, sentences) for text in responses["text"].to_pylist()]
    dropped: Counter[str] = Counter()
    for text, original in zip(texts, responses["text"].to_pylist(), strict=True):
        if text is None:
            dropped["no answer" if original is None else f"fewer than {sentences} sentences"] += 1
    keep = pa.array([text is not None for text in texts])
    kept = responses.filter(keep)
    if not kept.num_rows:
        raise UserError(f"No response has {sentences} sentences.", fix="Cut to fewer, or let the model write more.")
    columns = {name: kept[name] for name in Response.SCHEMA.names}
    columns["text"] = pa.array([text for text in texts if text is not None], pa.string())
    columns["finish_reason"] = pa.repeat(pa.scalar("stop"), kept.num_rows)
    columns["completion_tokens"] = pa.nulls(kept.num_rows, pa.int32())
    columns["logprob"] = pa.nulls(kept.num_rows, pa.float64())
    return pa.table(columns, schema=Response.SCHEMA), dict(dropped)
