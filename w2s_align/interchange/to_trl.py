"""Pairs in TRL's other formats: unpaired (KTO) and supervised (SFT). ``pair_import.py`` is the way back.

Reads and returns Arrow tables, by columns.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa

from w2s_align.records import MESSAGES

UNPAIRED = pa.schema([("prompt", MESSAGES), ("completion", MESSAGES), ("label", pa.bool_())])
"""TRL's unpaired preference format: https://huggingface.co/docs/trl/dataset_formats#unpaired-preference."""
SFT = pa.schema([("messages", MESSAGES)])
"""TRL's conversational language modeling format: https://huggingface.co/docs/trl/dataset_formats#language-modeling."""


def to_unpaired(pairs: pa.Table) -> pa.Table:
    """Turn pairs into TRL's unpaired (KTO) format: ``prompt``, ``completion``, ``label``; the chosen sides come
    first."""
    n = pairs.num_rows
    parts = [
        pa.table(
            {"prompt": pairs["prompt"], "completion": pairs[side], "label": pa.array(np.full(n, side == "chosen"))}
        )
        for side in ("chosen", "rejected")
    ]
    return pa.concat_tables(parts).cast(UNPAIRED)


def to_sft(pairs: pa.Table, side: Literal["chosen", "rejected"] = "chosen") -> pa.Table:
    """Turn one side of pairs into TRL's conversational SFT format: ``messages``, the prompt and the response in one
    chat."""
    import polars as pl

    chats = [pl.Series(name, pl.from_arrow(pairs[name])) for name in ("prompt", side)]
    messages = pl.DataFrame(chats).select(messages=pl.concat_list("prompt", side))
    return messages.to_arrow().cast(SFT)
