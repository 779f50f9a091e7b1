"""`w2s show` and `w2s report`: runs and artifacts in the terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table

from w2s_align.artifacts.artifact import Artifact
from w2s_align.errors import UserError
from w2s_align.records import PAIR_TERMS, turns_text
from w2s_align.runs.find import find_target
from w2s_align.runs.run import Run
from w2s_align.terminal.compare import EVALUATIONS
from w2s_align.terminal.console import open_console
from w2s_align.terminal.progress import printable, show_verdict
from w2s_align.terminal.run_view import run_view

if TYPE_CHECKING:
    from w2s_align.evaluation import Results
    from w2s_align.evaluation.run_comparison import RunComparison
    from w2s_align.recipe.sweep import Point
    from w2s_align.reporting.article import Article
    from w2s_align.terminal.compare import RunToCompare
    from w2s_align.terminal.sweep import SweepPoint


def show_target(target: str, runs_dir: Path, start: int, rows: int) -> None:
    """Print a run, or some rows of an artifact.

    Args:
        target: Folder of a run or an artifact, a recipe's name, or as in :func:`find_target`.
        runs_dir: Folder of the runs.
        start: First row.
        rows: Number of rows.

    Raises:
        UserError: Nothing of this name exists.
    """
    found = find_target(target, runs_dir)
    console = open_console(highlight=False)
    if isinstance(found, Run):
        steps, logs = run_view(found)
        console.print(steps)
        for log in logs:
            console.print(log, soft_wrap=True)
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

    found = find_target(target, runs_dir, lambda run: run.report is not None)
    if not isinstance(found, Run) or found.report is None:
        raise UserError(
            f"{target} has no report.",
            why="Its recipe has no report step, or that step has not run yet.",
            fix="Add `report: {kind: report, of: $scores}` to the recipe, and run it.",
        )
    console = open_console()
    text = (found.path / "report.md").read_text(encoding="utf-8")
    console.print(Markdown(re.sub(r"^!\[.*\n", "", text, flags=re.MULTILINE)))  # a terminal shows no plots
    console.print(f"Report: {found.report}", soft_wrap=True)
    if (latest := found.path.parent / "latest").resolve() != found.path:
        console.print(f"A later run, {latest.resolve().name}, has no report: w2s show {found.path.parent.name}")


def show_comparison(targets: Sequence[str], runs_dir: Path, step: str | None, out: Path | None, as_json: bool) -> None:
    """Compare runs, write the page, and print the tables or the JSON.

    Raises:
        UserError: A run does not exist or has no finished evaluation.
    """
    from w2s_align.terminal.compare import open_runs

    _compare(open_runs(targets, runs_dir, step), runs_dir, out, as_json)


def show_sweep(sweep: Sequence[SweepPoint], runs_dir: Path) -> None:
    """Run the points of a sweep; show each as it runs, then all of them in one table, and the best.

    Raises:
        UserError: With everything that keeps points from being run; the others are run and compared all the same.
    """
    from w2s_align.errors import Problem
    from w2s_align.terminal.sweep import run_sweep

    finished, problems = run_sweep(sweep, runs_dir)
    done = {item.point.label for item, _ in finished}
    failed = [item.point for item in sweep if item.point.label not in done]
    with_results = [(item, run) for item, run in finished if _has_evaluation(run)]
    console = open_console(highlight=False)
    if len(with_results) > 1:
        _show_points(console, with_results, failed, runs_dir)
    elif finished and not with_results:
        console.print("This recipe has no evaluate step, so its points cannot be compared.")
    console.print(f"{len(finished)} of {len(sweep)} points are done.")
    if problems:
        raise UserError.all([Problem(p.what, p.why, p.fix, f"{label}: {p.where}") for label, p in problems])


def list_points(sweep: Sequence[SweepPoint]) -> None:
    """Print the points of a sweep with the values that each sets, and what it costs; run nothing."""
    table = Table("point", "cost", "values")
    for item in sweep:
        cost = "" if item.point.cost is None else f"{item.point.cost:,.6g}"
        table.add_row(printable(item.point.label), cost, printable(" ".join(item.point.overrides)))
    console = open_console(highlight=False)
    console.print(table)
    console.print(f"{len(sweep)} points. Without --list they are run.")


def _show_points(
    console: Console, points: Sequence[tuple[SweepPoint, Run]], failed: Sequence[Point], runs_dir: Path
) -> None:
    """Write the page of a sweep, and print its table and the best point, or what it comes to over worlds."""
    import dataclasses
    import hashlib

    from w2s_align.evaluation.run_comparison import compare_studies
    from w2s_align.recipe.sweep import only_seeds
    from w2s_align.reporting.article import write_article
    from w2s_align.terminal.compare import arms_of, open_runs

    lost = [point.values for point in failed]
    paths = dict.fromkeys(path for given in [*(item.point.values for item, _ in points), *lost] for path in given)
    worlds = only_seeds(paths)
    labels = [f"world {i + 1}" if worlds else item.point.label for i, (item, _) in enumerate(points)]
    runs = open_runs([str(run.path) for _, run in points], runs_dir)
    runs = [dataclasses.replace(run, name=label) for run, label in zip(runs, labels, strict=True)]
    found = compare_studies(arms_of(runs))
    values = {path: [item.point.values.get(path) for item, _ in points] for path in paths}
    if all(item.point.cost is not None for item, _ in points):
        article, table, sentence = _frontier(found, [item.point for item, _ in points], failed)
    else:
        page = _over_worlds if worlds else _best_point
        article, table, sentence = page(found, [run.results for run in runs], values, lost)
    name = hashlib.sha256("\n".join(run.artifact.key for run in runs).encode()).hexdigest()[:12]
    file, *_ = write_article(article, runs_dir / "sweeps" / points[0][0].name / name)
    console.print(table)
    if sentence:
        console.print(f"[bold]{printable(sentence)}[/]")
    console.print(f"Page: {file}", soft_wrap=True)


def _best_point(
    found: RunComparison, results: Sequence[Results], values: Mapping[str, Any], failed: Sequence[Mapping[str, Any]]
) -> tuple[Article, Group, str]:
    """Return the page, the table and the best point of a sweep."""
    from w2s_align.evaluation.run_comparison import best_cell
    from w2s_align.reporting.compare_page import best_sentence
    from w2s_align.reporting.sweep_page import sweep_article, sweep_table

    best = best_cell(found)
    sentence = best_sentence(found, best) if best is not None else ""
    return sweep_article(found, values, failed), sweep_table(found, values, failed), sentence


def _frontier(found: RunComparison, points: Sequence[Point], failed: Sequence[Point]) -> tuple[Article, Group, str]:
    """Return the page, the table and the frontier of a sweep over budgets of labels."""
    from w2s_align.reporting.frontier_page import Priced, frontier_article, frontier_sentence, frontier_table

    priced = [Priced(point.name, point.cost or 0.0, point.group) for point in points]
    lost = [point.label for point in failed]
    sentence = frontier_sentence(found, priced)
    return frontier_article(found, priced, lost), frontier_table(found, priced, lost), sentence


def _over_worlds(
    found: RunComparison, results: Sequence[Results], values: Mapping[str, Any], failed: Sequence[Mapping[str, Any]]
) -> tuple[Article, Group, str]:
    """Return the page, the table and the conclusion of a sweep over seeds alone: the best seed would be luck."""
    from w2s_align.evaluation.worlds import over_worlds
    from w2s_align.reporting.worlds_page import worlds_article, worlds_sentences, worlds_table

    worlds = over_worlds(results, found.names)
    article = worlds_article(worlds, found, values, failed)
    return article, worlds_table(worlds, failed), " ".join(worlds_sentences(worlds))


def _has_evaluation(run: Run) -> bool:
    return any(run.state["nodes"][name]["kind"] in EVALUATIONS for name in run.names())


def _compare(runs: Sequence[RunToCompare], runs_dir: Path, out: Path | None, as_json: bool) -> None:
    """Write the page of a comparison and print it."""
    import hashlib

    from w2s_align.evaluation.run_comparison import compare_studies
    from w2s_align.reporting.article import write_article
    from w2s_align.reporting.compare_page import compare_article, compare_tables
    from w2s_align.terminal.compare import arms_of, differences

    options = differences(runs)
    found = compare_studies(arms_of(runs))
    name = hashlib.sha256("\n".join(run.artifact.key for run in runs).encode()).hexdigest()[:12]
    page, _, numbers, *_ = write_article(compare_article(found, options), out or runs_dir / "compare" / name)
    if as_json:
        print(numbers.read_text(encoding="utf-8"))
        return
    console = open_console(highlight=False)
    console.print(compare_tables(found, options))
    console.print(f"Page: {page}", soft_wrap=True)


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
    total, shown = _slice(artifact, "prompts", start, rows)
    panels = []
    for row in shown:
        answer = "" if row["answer"] is None else f"\n[dim]answer:[/] {printable(row['answer'])}"
        panels.append(Panel(_chat(row["messages"]) + answer, title=f"{row['id']}  {row['task']}", title_align="left"))
    return Group(*panels, _place(start, len(panels), total))


def _responses(artifact: Artifact, start: int, rows: int) -> RenderableType:
    import pyarrow.compute as pc

    total, shown = _slice(artifact, "responses", start, rows)
    asked = artifact.prompts().table()
    asked = asked.filter(pc.is_in(asked["id"], pa.array([row["prompt_id"] for row in shown], pa.string())))
    prompts = {p["id"]: p["messages"] for p in asked.select(["id", "messages"]).to_pylist()}
    panels = []
    for row in shown:
        title = f"{row['model']}  sample {row['sample']}  {row['finish_reason']}  {row['completion_tokens']} tokens"
        text = printable(row["text"] if row["text"] is not None else f"(no answer: {row['error']})")
        panels.append(Panel(f"{_chat(prompts[row['prompt_id']])}\n\n{text}", title=title, title_align="left"))
    return Group(*panels, _place(start, len(panels), total))


def _scores(artifact: Artifact, start: int, rows: int) -> RenderableType:
    total, found = _slice(artifact, "scores", start, rows)
    shown = Table("prompt", "model", "sample", "scorer", "value", "detail", box=None, header_style="dim")
    for row in found:
        value = "not scored" if row["value"] is None else f"{row['value']:g}"
        shown.add_row(
            row["prompt_id"], row["model"], str(row["sample"]), row["scorer"], value, printable(row["detail"][:80])
        )
    rest: list[RenderableType] = []
    if "panel" in artifact.manifest["result"]:
        from w2s_align.reporting.panel_page import panel_table

        rest = [
            panel_table(artifact.manifest["result"]["panel"]),
            f"Page: {printable(str(artifact.path / 'report.html'))}",
        ]
    return Group(shown, _place(start, len(found), total), *rest)


def _pairs(artifact: Artifact, start: int, rows: int) -> RenderableType:
    total, shown = _slice(artifact, "train", start, rows)
    panels = []
    for row in shown:
        sides = Table(
            f"[green]chosen[/]  {row['chosen_model']}",
            f"[red]rejected[/]  {row['rejected_model']}",
            box=None,
            expand=True,
        )
        sides.add_row(*(printable(turns_text(row[side])) for side in ("chosen", "rejected")))
        terms = ", ".join(f"{name} {row[name]:.3g}" for name in PAIR_TERMS.names if row.get(name) is not None)
        shown_pair = Group(_chat(row["prompt"]) + "\n", sides)
        panels.append(Panel(shown_pair, title=row["prompt_id"], title_align="left", subtitle=terms or None))
    rest: list[RenderableType] = []
    if "audit" in artifact.manifest["result"]:
        rest.append(_audit(artifact.manifest["result"]["audit"]))
    if (artifact.path / "audit.html").is_file():
        rest.append(f"Page: {printable(str(artifact.path / 'audit.html'))}")
    return Group(*panels, _place(start, len(panels), total), *rest)


def _audit(values: Mapping[str, Any]) -> Table:
    """Return the audit of pairs as a table: a group of lines for each of its parts."""
    from w2s_align.pairing import Audit

    table = Table("audit", "", "", box=None, header_style="dim", pad_edge=False)
    table.columns[0].no_wrap = table.columns[1].no_wrap = True
    before = ""
    for part, name, text in Audit.from_json(values).rows():
        table.add_row(f"[bold]{part}[/]" if part != before else "", printable(name), printable(text))
        before = part
    return table


def _model(artifact: Artifact, start: int, rows: int) -> RenderableType:
    result = printable(json.dumps(artifact.manifest["result"], ensure_ascii=False, indent=1)[:4000])
    return Group(f"model: {artifact.model}", result)


def _results(artifact: Artifact, start: int, rows: int) -> RenderableType:
    from w2s_align.evaluation import Results
    from w2s_align.reporting import summary_table

    results = Results.model_validate_json(artifact.text("results.json"))
    if results.study == "choice":
        from w2s_align.reporting.choice_page import choice_table

        return choice_table(results)
    if results.conflicts:
        from w2s_align.reporting.pairs_page import conflict_table

        return Group(summary_table(results), conflict_table(results))
    return summary_table(results)


def _nothing(artifact: Artifact, start: int, rows: int) -> RenderableType:
    return "\n".join(
        str(path.relative_to(artifact.path)) for path in sorted(artifact.path.rglob("*")) if path.is_file()
    )


def _slice(artifact: Artifact, name: str, start: int, rows: int) -> tuple[int, list[dict[str, Any]]]:
    """Read some rows of an artifact and no more of its files than needed: it may hold a million.

    Returns:
        The number of all rows, and the rows asked for.
    """
    import pyarrow.parquet as pq

    total = 0
    found: list[dict[str, Any]] = []
    for path in sorted((artifact.path / "data").glob(f"{name}*.parquet")):
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                size = file.metadata.row_group(group).num_rows
                if len(found) < rows and start < total + size:
                    part = file.read_row_group(group).slice(max(start - total, 0), rows - len(found))
                    found += part.to_pylist()
                total += size
    return total, found


def _place(start: int, shown: int, total: int) -> str:
    return f"[dim]rows {start} to {start + shown - 1} of {total}[/]" if shown else f"[dim]no row of {total} is here[/]"


def _dataset(artifact: Artifact, start: int, rows: int) -> RenderableType:
    total, shown = _slice(artifact, "train", start, rows)
    panels = [Panel(printable(json.dumps(row, ensure_ascii=False, indent=1))) for row in shown]
    return Group(*panels, _place(start, len(panels), total), f"Dataset: {printable(str(artifact.path))}")


def _chats(artifact: Artifact, start: int, rows: int) -> RenderableType:
    total, shown = _slice(artifact, "chats", start, rows)
    panels = (Panel(_chat(row["messages"])) for row in shown)
    turns = ", ".join(f"{n} in {chats:,}" for n, chats in artifact.manifest["result"]["assistant_turns"].items())
    roles = ", ".join(f"{role} {n:,}" for role, n in artifact.manifest["result"]["roles"].items())
    facts = f"Turns of the assistant: {turns} chats. Messages: {roles}."
    return Group(*panels, _place(start, len(shown), total), facts)


def _chat(messages: list[dict[str, str]]) -> str:
    return "\n".join(f"[dim]{printable(m['role'])}:[/] {printable(m['content'])}" for m in messages)


ROWS: dict[str, Callable[[Artifact, int, int], RenderableType]] = {
    "prompts": _prompts,
    "responses": _responses,
    "scores": _scores,
    "pairs": _pairs,
    "dataset": _dataset,
    "chats": _chats,
    "model": _model,
    "results": _results,
}
