"""Artifacts that no step made, for tests of a single step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from w2s_align.artifacts.artifact import Artifact
from w2s_align.steps.work import Work


def artifact(folder: Path, kind: str, table: pa.Table) -> Artifact:
    """Write a table as an artifact; responses and scores belong to the prompts in ``../../prompts/key``."""
    (folder / "data").mkdir(parents=True)
    pq.write_table(table, folder / "data" / f"{kind}.parquet")
    inputs = {} if kind == "prompts" else {"prompts": {"kind": "prompts", "key": "key"}}
    manifest = {"kind": kind, "type": kind, "key": folder.name, "inputs": inputs, "name": folder.name}
    (folder / "artifact.json").write_text(json.dumps(manifest))
    return Artifact.open(folder)


def run_step(step: Any, made: dict[str, Artifact], out: Path) -> Work:
    """Run a step; what it refers to is taken from ``made`` by name."""
    references = [place for place in step.references() if place.step is not None]
    inputs = {".".join(place.path): made[place.step] for place in references}
    work = Work("made", out, inputs, {}, lambda done, total, note: None)
    out.mkdir()
    step.run(work)
    return work
