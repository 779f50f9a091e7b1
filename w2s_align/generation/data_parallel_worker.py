"""One process of a data-parallel generation: ``python -m w2s_align.generation.data_parallel_worker FOLDER NUMBER``.

Started by :mod:`~w2s_align.generation.data_parallel`, never by hand. Reads ``job.json``, ``prompts.parquet`` and
``NUMBER.rows``; writes ``NUMBER.jsonl``.
"""

from __future__ import annotations

import json
import os
import sys
from array import array
from contextlib import closing
from pathlib import Path

from w2s_align.errors import UserError
from w2s_align.generation.attempt import Attempt
from w2s_align.generation.data_parallel import CORES
from w2s_align.generation.engines import EngineCache
from w2s_align.generation.job import Job
from w2s_align.generation.journal import Journal
from w2s_align.generation.models import find_model
from w2s_align.generation.prompts import PromptRows
from w2s_align.generation.row_check import ROW_COLUMNS
from w2s_align.generation.settings import Engine, EngineResources, Sampling
from w2s_align.processes import die_with_parent


def main() -> None:
    """Run one process; a refusal goes into ``NUMBER.error.json``."""
    die_with_parent()
    folder, number = Path(sys.argv[1]), int(sys.argv[2])
    try:
        _generate(folder, number)
    except UserError as error:
        (folder / f"{number}.error.json").write_text(json.dumps(error.to_json()))
        sys.exit(2)


def _generate(folder: Path, number: int) -> None:
    """Generate the rows of ``NUMBER.rows`` into ``NUMBER.jsonl``."""
    if cores := os.environ.get(CORES):
        os.sched_setaffinity(0, [int(core) for core in cores.split(",")])
    content = json.loads((folder / "job.json").read_text())
    engine = Engine(**content["engine"])
    model = find_model(content["model"], engine.revision)
    prompts = PromptRows(folder / "prompts.parquet")
    job = Job(model, content["model_name"], prompts, Sampling(**content["sampling"]), engine, content["seed"])
    rows = array("q")
    rows.frombytes((folder / f"{number}.rows").read_bytes())
    journal = Journal(folder / f"{number}.jsonl", content["identity"], job.rows, only=rows, required=ROW_COLUMNS)
    with closing(journal), EngineCache() as engines:
        Attempt(job, journal, engines, EngineResources(**content["resources"])).generate()
        journal.sync(now=True)


if __name__ == "__main__":
    main()
