"""`w2s show` and `w2s report`: runs and artifacts in the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table

from w2s_align.errors import UserError, did_you_mean
from w2s_align.runs.display import printable, show_verdict
from w2s_align.runs.run import Run
from w2s_align.steps.work import MANIFEST, Artifact


def show_target(target: str, runs_dir: Path, start: int, rows: int) -> None:
    """Print a run, or some rows of an artifact.

    Args:
        target: Folder of a run or an artifact, a recipe's name, or ``<recipe>/<step>``.
        runs_dir: Folder of the runs.
        start: First row.
        rows: Number of rows.

    Raises:
        UserError: Nothing of this name exists.
    """
    found = find_target(target, runs_dir)
    console = Console(highlight=False)
    if isinstance(found, Run):
        console.print(_run_table(found))
        show_verdict(console, found)
        return
    console.print(_heading(found))
    console.print(ROWS.get(found.type, _nothing)(found, start, rows))


def show_report(target: str, runs_dir: Path) -> None:
    """Print the Markdown summary of a run and where its page is.

    Raises:
        UserError: The run has no report.
    """
    from rich.markdown import Markdown

    found = find_target(target, runs_dir)
    if not isinstance(found, Run) or found.report is None:
        raise UserError(
            f"{target} has no report.",
            why="Its recipe has no step of the kind report, or that step has not run yet.",
            fix="Add `report: {kind: report, of: $scores}` to the recipe, and run it.",
        )
    console = Console()
    console.print(Markdown((found.path / "report.md").read_text(encoding="utf-8")))
    console.print(f"Report: {found.report}", soft_wrap=True)


def find_target(target: str, runs_dir: Path) -> Run | Artifact:
    """Return the run or artifact that a user means."""
    path = Path(target)
    if (path / MANIFEST).is_file():
        return Artifact.open(path)
    if (path / "run.json").is_file():
        return Run.open(path)
    recipes = runs_dir / "runs"
    recipe, _, step = target.partition("/")
    recipe = recipe.removesuffix(".yaml")
    latest = recipes / recipe / "latest"
    if not latest.exists():
        known = [p.name for p in recipes.iterdir()] if recipes.is_dir() else []
        raise UserError(
            f"There is no run or artifact {target} in {runs_dir}.",
            fix=did_you_mean(recipe, known) or "Run a recipe first: w2s run quickstart",
        )
    run = Run.open(latest)
    return run.artifact(step) if step else run


def _run_table(run: Run) -> Table:
    state = run.state
    table = Table("step", "kind", "state", "kept", "seconds", "counts", box=None, header_style="dim")
    table.title = f"{state.get('name', run.path.parent.name)}  {run.path.name}  {state['status']}"
    table.title_justify = "left"
    for name, node in state["nodes"].items():
        manifest: Mapping[str, Any] = {}
        if node["state"] in ("cached", "done"):
            manifest = run.artifact(name).manifest
        counts = manifest.get("counts", {})
        dropped = ", ".join(f"{n} {reason}" for reason, n in counts.get("dropped", {}).items() if n)
        seconds = manifest.get("seconds")
        table.add_row(
            name,
            node["kind"],
            node["state"],
            str(counts.get("kept", "")),
            "" if seconds is None else f"{seconds:.1f}",
            f"dropped: {dropped}" if dropped else "",
        )
    return table


def _heading(artifact: Artifact) -> Group:
    manifest = artifact.manifest
    lines = [
        f"[bold]{manifest['name']}[/]  {artifact.kind} -> {artifact.type}  "
        f"{manifest['created']}  {manifest['seconds']} s",
        f"[dim]{artifact.path}[/]",
        "counts: " + printable(json.dumps(manifest["counts"], ensure_ascii=False)),
    ]
    lines += [f"[yellow]warning:[/] {printable(text)}" for text in manifest["warnings"]]
    return Group(*lines)


def _prompts(artifact: Artifact, start: int, rows: int) -> RenderableType:
    table = artifact.table()
    panels = []
    for row in table.slice(start, rows).to_pylist():
        answer = "" if row["answer"] is None else f"\n[dim]answer:[/] {printable(row['answer'])}"
        panels.append(Panel(_chat(row["messages"]) + answer, title=f"{row['id']}  {row['task']}", title_align="left"))
    return Group(*panels, f"[dim]rows {start} to {start + len(panels) - 1} of {table.num_rows}[/]")


def _responses(artifact: Artifact, start: int, rows: int) -> RenderableType:
    table = artifact.table()
    prompts = {p["id"]: p["messages"] for p in artifact.prompts().table().to_pylist()}
    panels = []
    for row in table.slice(start, rows).to_pylist():
        title = f"{row['model']}  sample {row['sample']}  {row['finish_reason']}  {row['completion_tokens']} tokens"
        text = printable(row["text"] if row["text"] is not None else f"(no answer: {row['error']})")
        panels.append(Panel(f"{_chat(prompts[row['prompt_id']])}\n\n{text}", title=title, title_align="left"))
    return Group(*panels, f"[dim]rows {start} to {start + len(panels) - 1} of {table.num_rows}[/]")


def _scores(artifact: Artifact, start: int, rows: int) -> RenderableType:
    table = artifact.table()
    shown = Table("prompt", "model", "sample", "scorer", "value", "detail", box=None, header_style="dim")
    for row in table.slice(start, rows).to_pylist():
        value = "not scored" if row["value"] is None else f"{row['value']:g}"
        shown.add_row(
            row["prompt_id"], row["model"], str(row["sample"]), row["scorer"], value, printable(row["detail"][:80])
        )
    return shown


def _pairs(artifact: Artifact, start: int, rows: int) -> RenderableType:
    table = artifact.table("train")
    panels = []
    for row in table.slice(start, rows).to_pylist():
        sides = Table(
            f"[green]chosen[/]  {row['chosen_model']}",
            f"[red]rejected[/]  {row['rejected_model']}",
            box=None,
            expand=True,
        )
        sides.add_row(printable(row["chosen"][-1]["content"]), printable(row["rejected"][-1]["content"]))
        panels.append(Panel(Group(_chat(row["prompt"]) + "\n", sides), title=row["prompt_id"], title_align="left"))
    audit = artifact.manifest["result"].get("audit", {})
    return Group(
        *panels,
        f"[dim]rows {start} to {start + len(panels) - 1} of {table.num_rows}[/]",
        "audit: " + printable(json.dumps(audit, ensure_ascii=False, indent=1)),
    )


def _model(artifact: Artifact, start: int, rows: int) -> RenderableType:
    result = printable(json.dumps(artifact.manifest["result"], ensure_ascii=False, indent=1)[:4000])
    return Group(f"model: {artifact.model}", result)


def _results(artifact: Artifact, start: int, rows: int) -> RenderableType:
    from w2s_align.reporting import summary_table

    return summary_table(json.loads((artifact.path / "results.json").read_text(encoding="utf-8")))


def _nothing(artifact: Artifact, start: int, rows: int) -> RenderableType:
    return "\n".join(
        str(path.relative_to(artifact.path)) for path in sorted(artifact.path.rglob("*")) if path.is_file()
    )


def _chat(messages: list[dict[str, str]]) -> str:
    return "\n".join(f"[dim]{printable(m['role'])}:[/] {printable(m['content'])}" for m in messages)


ROWS: dict[str, Callable[[Artifact, int, int], RenderableType]] = {
    "prompts": _prompts,
    "responses": _responses,
    "scores": _scores,
    "pairs": _pairs,
    "model": _model,
    "results": _results,
}
