"""What a run looks like from outside: each step's status, progress, host and start time.

Reads the run's folder and the files and locks that working processes keep (status.py), so that any machine that sees
the folder can watch.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from w2s_align.artifacts.store import Store
from w2s_align.runs.run import Run
from w2s_align.runs.status import Now, now
from w2s_align.terminal.progress import printable

COLORS = {"running": "cyan", "failed": "red", "stopped": "yellow"}


def run_view(run: Run) -> tuple[Table, list[str]]:
    """Return the steps of a run as a table; and of those at work, failed or stopped, the log and its last line."""
    recorded = run.state
    store = Store(run.path.parents[2])
    steps = {name: (node, now(store, node["kind"], node["key"])) for name, node in recorded["nodes"].items()}
    table = Table("step", "kind", "state", "kept", "seconds", "", box=None, header_style="dim")
    table.title = f"{recorded.get('name', run.path.parent.name)}  {run.path.name}  {_whole(recorded, steps)}"
    table.title_justify = "left"
    logs = []
    for name, (node, found) in steps.items():
        artifact = store.find(node["kind"], node["key"])
        if artifact is not None:
            state = node["state"] if node["state"] in ("cached", "done") else "done"
            table.add_row(name, node["kind"], state, *_written(artifact.manifest))
            continue
        color = COLORS.get(found.state)
        state = f"[{color}]{found.state}[/]" if color else "skipped" if node["state"] == "skipped" else found.state
        table.add_row(name, node["kind"], state, "", _age(found), printable(_doing(found)))
        if found.state in COLORS and found.log is not None and found.log.is_file():
            log, last = printable(str(found.log)), printable(found.last_line[:160])
            logs.append(f"[dim]{name}:[/] {log}\n  {last}")
    return table, logs


def _whole(recorded: Mapping[str, Any], steps: Mapping[str, tuple[Any, Now]]) -> str:
    """Say how the run stands; what its last process wrote is out of date once it was killed."""
    states = {found.state for _, found in steps.values()}
    if not steps or states == {"done"}:
        return str(recorded["status"])
    if "running" in states:
        return "running"
    return "failed" if "failed" in states or recorded["status"] == "failed" else "not finished, not running"


def _written(manifest: Mapping[str, Any]) -> tuple[str, str, str]:
    counts = manifest.get("counts", {})
    dropped = ", ".join(f"{n} {reason}" for reason, n in counts.get("dropped", {}).items() if n)
    return str(counts.get("kept", "")), f"{manifest['seconds']:.1f}", f"dropped: {dropped}" if dropped else ""


def _age(found: Now) -> str:
    return f"{time.time() - found.since:.0f}" if found.state == "running" and found.since else ""


def _doing(found: Now) -> str:
    parts = [f"{found.done:,}/{found.total:,}"] if found.total else []
    parts += [found.note] if found.note else []
    parts += [f"on {', '.join(found.hosts)}"] if found.hosts else []
    if found.since and found.state != "running":
        parts.append(f"started {time.strftime('%d %b %H:%M', time.localtime(found.since))}")
    return ", ".join(parts)
