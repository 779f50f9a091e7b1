"""What steps that read several artifacts share: what is behind them, and their rows in one table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from w2s_align.artifacts.artifact import Artifact

if TYPE_CHECKING:
    import pyarrow as pa


def prompts_behind(artifacts: Sequence[Artifact]) -> pa.Table:
    """Return the prompts behind responses, each once."""
    behind = {artifact.prompts().path: artifact.prompts() for artifact in artifacts}
    tables = [artifact.table() for artifact in behind.values()]
    if len(tables) == 1:
        return tables[0]
    import polars as pl

    merged = pl.concat([pl.DataFrame(pl.from_arrow(table)) for table in tables])
    return merged.unique("id", keep="first", maintain_order=True).to_arrow().cast(tables[0].schema)


def behind(source: Artifact) -> list[Artifact]:
    """Return an artifact and all it was made from, each after what it read."""
    found: dict[str, Artifact] = {}

    def visit(artifact: Artifact) -> None:
        if artifact.key not in found:
            for _, read in artifact.inputs():
                visit(read)
            found[artifact.key] = artifact

    visit(source)
    return list(found.values())


def join_tables(tables: Sequence[pa.Table]) -> pa.Table:
    """Return the rows of several tables of one kind; a column that files of an older version lack is null in them."""
    import pyarrow as pa

    return pa.concat_tables(tables, promote_options="default")


def labeled(scores: pa.Table, **labels: str) -> pa.Table:
    """Return scores with columns that say whose they are, so that those of all arms fit into one table."""
    import pyarrow as pa

    for name, value in labels.items():
        scores = scores.append_column(name, pa.repeat(pa.scalar(value), scores.num_rows))
    return scores
