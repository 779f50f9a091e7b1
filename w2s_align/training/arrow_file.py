"""Rows pass through a converter into one Arrow file, which a trainer opens memory-mapped.

Reads what formats.py reads; writes ``<folder>/<digest>/rows.arrow``.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from w2s_align.errors import UserError
from w2s_align.training.data import RowCollector, TrainingData
from w2s_align.training.formats import Rows, read_rows, sources_of
from w2s_align.training.settings import TrainSettings

if TYPE_CHECKING:
    from w2s_align.training.tokens import ChatEncoder


def store_rows(
    source: Rows,
    schema: pa.Schema,
    needed: tuple[str, ...],
    convert: Callable[[list[dict[str, Any]], RowCollector], list[dict[str, Any]]],
    encoder: ChatEncoder,
    settings: TrainSettings,
    folder: Path,
    arrange: Callable[[pa.Table], pa.Table] | None = None,
    **key: Any,
) -> TrainingData:
    """Pass all rows through ``convert``, and then ``arrange``, into an Arrow file that is named after its content.

    Args:
        source: One set of rows, or several.
        schema: Schema of the stored rows.
        needed: Columns that tell the format of the rows; see :func:`~w2s_align.training.formats.read_rows`.
        convert: Makes stored rows of a batch of rows, and asks the collector about each.
        encoder: The student's tokenizer and template.
        settings: Lengths, and what to do beyond them.
        folder: Where the file goes: ``<folder>/<digest>/rows.arrow``. An existing file is used again.
        arrange: Changes the order of the stored rows, or what depends on it.
        **key: What else changes tokens or log-probabilities; part of the digest.

    Raises:
        UserError: A column is missing, nothing is left, the template is wrong, or a row is too long and ``too_long``
            is ``error``.
    """
    table = RowCollector(encoder, settings)
    extra: dict[str, Any] = {}
    if settings.chat_template_kwargs and "prompt" in schema.names:
        # TRL reads the template's arguments from a column of this name.
        extra = {"chat_template_kwargs": settings.chat_template_kwargs}
        schema = schema.append(pa.field("chat_template_kwargs", pa.array([settings.chat_template_kwargs]).type))
    key |= {"max_length": settings.max_length if settings.too_long == "truncate" else None}
    key |= {"template": encoder.tokenizer.chat_template}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode())
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"partial-{uuid.uuid4().hex}.arrow"
    try:
        with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            for rows in _batches(source, needed, table):
                table.rows += len(rows)
                if kept := [{**row, **extra} for row in convert(rows, table)]:
                    digest.update(json.dumps(kept, ensure_ascii=False).encode())
                    writer.write_batch(pa.RecordBatch.from_pylist(kept, schema=schema))
        if not table.kept:
            raise _nothing_left(table)
        if arrange is not None:
            _rewrite(partial, arrange)
        file = folder / digest.hexdigest()[:32] / "rows.arrow"
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return table.data(file, digest.hexdigest())


def _rewrite(file: Path, arrange: Callable[[pa.Table], pa.Table]) -> None:
    with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
        arranged = arrange(stream.read_all())
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, arranged.schema) as writer:
        writer.write_table(arranged)


def _nothing_left(table: RowCollector) -> UserError:
    counted = ", ".join(f"{name}: {count}" for name, count in table.counts().in_words().items() if count)
    fix = "Give more rows, or change max_length or too_long."
    if table.dropped["without_prompt"]:
        fix = "Give each pair a prompt: messages up to the user's last turn."
    if table.dropped["without_label"]:
        fix = "Give items with gold answers, or labels: $step of kind label."
    return UserError("There is no row to train on.", f"Counts: {counted or 'no rows at all'}.", fix)


def _batches(source: Rows, needed: tuple[str, ...], table: RowCollector) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of all sets; of several, count those kept of each, and those whose prompt an earlier set has."""
    sets = sources_of(source)
    before: set[int] = set()
    for one in sets:
        kept, prompts = table.kept, set()
        for rows in read_rows(one, needed):
            if len(sets) > 1:
                asked = [hash(json.dumps(row["prompt"])) for row in rows if row.get("prompt")]
                table.shared_prompts += sum(prompt in before for prompt in asked)
                prompts.update(asked)
            yield rows
        if len(sets) > 1:
            table.kept_by_set.append(table.kept - kept)
        before |= prompts
