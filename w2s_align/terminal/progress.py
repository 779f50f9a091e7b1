"""What a run looks like in the terminal: one line for each step, live bars for those at work, a table at the end.

Text that models wrote is printed as text: control characters, which could steer the terminal, are taken out.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from types import TracebackType

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from w2s_align.runs.outcome import Event, Outcome
from w2s_align.runs.run import Run
from w2s_align.steps.work import merge_warnings
from w2s_align.terminal.console import open_console

LINE_EVERY = 15.0
"""Seconds between two progress lines of a step when the output is not a terminal."""


def print_rich(renderable: RenderableType) -> None:
    """Print to standard output."""
    open_console().print(renderable, highlight=False)


def printable(text: str) -> str:
    """Return a text that is safe to print: no control characters but newlines, no markup."""
    return escape("".join(c if c == "\n" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text))


class Display:
    """Shows a run while it runs.

    Args:
        names: Names of the steps that run.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._console = open_console(stderr=not sys.stdout.isatty(), highlight=False)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._bars: dict[str, TaskID] = {}
        self._last_line: dict[str, float] = {}
        self._width = max((len(name) for name in names), default=0)
        self._cached = 0

    def __enter__(self) -> Display:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._progress.stop()

    def heading(self, text: str) -> None:
        """Say what the following lines are about."""
        self._console.print(f"\n[bold]{printable(text)}[/]")

    def on_event(self, event: Event) -> None:
        """Show one event."""
        if event.kind == "cached":
            self._cached += 1
        elif event.kind == "started":
            self._bars[event.name] = self._progress.add_task(event.name, total=None, note="")
            self._last_line[event.name] = time.monotonic()
            if event.note == "started":
                self._line(event.name, "resumes where it stopped")
        elif event.kind == "progress":
            self._show_progress(event)
        elif event.kind == "note":
            self._line(event.name, f"[yellow]note:[/] {printable(event.note)}")
        elif event.kind == "waiting":
            self._line(event.name, f"waiting: {event.note}")
        else:
            if event.name in self._bars:
                self._progress.remove_task(self._bars.pop(event.name))
            words = {"done": "[green]done[/]", "failed": "[red]failed[/]", "skipped": "[yellow]skipped[/]"}
            note = f"  {event.note}" if event.note else f"  {event.seconds:.1f} s"
            self._line(event.name, words[event.kind] + note)

    def _show_progress(self, event: Event) -> None:
        bar = self._bars[event.name]
        counter = f"{event.done:,}/{event.total:,}  " if event.total else ""
        self._progress.update(bar, completed=event.done, total=event.total or None, note=counter + escape(event.note))
        if not self._console.is_terminal and time.monotonic() - self._last_line[event.name] > LINE_EVERY:
            self._last_line[event.name] = time.monotonic()
            self._line(event.name, counter + escape(event.note))

    def _line(self, name: str, text: str) -> None:
        self._console.print(f"  {name:<{self._width}}  {text}", soft_wrap=True)

    def summary(self, run: Run, outcome: Outcome) -> None:
        """Show what became of the run: crashes with the end of their logs, or the verdict and where the page is."""
        console = self._console
        self._show_crashes(outcome)
        if outcome.ok or run.report is not None:  # a failed step beside it does not hide a finished report
            show_verdict(console, run)
            _show_numbers(console, run, outcome)
            _show_folders(console, run, outcome)
        _show_warnings(console, run, outcome)

    def summary_of_many(self, runs: Iterable[Run], outcome: Outcome) -> None:
        """Show what became of several runs: crashes, and for each run whether it is whole and where it is."""
        self._show_crashes(outcome)
        for run in runs:
            state = "[green]done[/]  " if run.state["status"] == "done" else "[red]failed[/]"
            self._console.print(f"  {state}  {run.report or run.path}", soft_wrap=True)

    def _show_crashes(self, outcome: Outcome) -> None:
        console = self._console
        if self._cached:
            console.print(f"  {self._cached} of {len(outcome.states)} artifacts were cached.")
        for name, text, log in outcome.crashes:
            console.print(f"\n[red]Step {name} crashed.[/] The end of its output:")
            console.print(printable("\n".join(text.strip().splitlines()[-12:])), style="dim", soft_wrap=True)
            console.print(f"Full log: {log}\nRun the same command again to resume from here.", soft_wrap=True)


def show_verdict(console: Console, run: Run) -> None:
    """Show the verdict of a finished run and where its page is, or only where the run is."""
    verdict = run.verdict()
    if verdict:
        console.print(f"\n[bold]{printable(verdict)}[/]\n")
    where = run.report or run.path
    console.print(f"{'Report' if run.report else 'Run'}: {where}", soft_wrap=True)


def _show_numbers(console: Console, run: Run, outcome: Outcome) -> None:
    """Show the table of each evaluation, and what it concludes where no report has said it."""
    for name, state in outcome.states.items():
        if state not in ("done", "cached") or "/" in name or run.artifact(name).type != "results":
            continue
        from w2s_align.evaluation.results import Results
        from w2s_align.reporting.terminal import summary_table

        artifact = run.artifact(name)
        if run.report is None:
            verdict = artifact.manifest["result"]["verdict"]
            console.print(f"[bold]{printable(verdict['headline'])}[/] {printable(verdict['sentence'])}")
        console.print(summary_table(Results.model_validate_json(artifact.text("results.json"))))


RESULTS = {"model": "model", "dataset": "", "pairs": "audit.html", "report": "report.html", "file": ""}
"""What a user takes from a run: by type of artifact, the file or folder in it."""


def _show_folders(console: Console, run: Run, outcome: Outcome) -> None:
    """Show where the models, datasets and pages of a run are, by the names of their steps, seeds in one line."""
    found: dict[str, list[str]] = {}
    for name, state in outcome.states.items():
        if state in ("done", "cached") and "/" not in name:
            artifact = run.artifact(name)
            step, _, seed = name.partition("@")
            if artifact.type in RESULTS and (artifact.path / RESULTS[artifact.type]).exists():
                complete = (run.path / "models" / name).is_dir()  # with the card that has the evaluation in it
                place = f"models/{step}#" if complete else f"steps/{step}#/{RESULTS[artifact.type]}"
                found.setdefault(place, []).append(seed)
    if found:
        console.print(f"In {printable(str(run.path))}:", soft_wrap=True)
    for place, seeds in found.items():
        many = f"@{{{','.join(seeds)}}}" if len(seeds) > 1 else f"@{seeds[0]}" if seeds[0] else ""
        console.print(f"  {printable(place.replace('#', many).rstrip('/'))}", soft_wrap=True)


def _show_warnings(console: Console, run: Run, outcome: Outcome) -> None:
    """Show what the steps of this very execution warned about."""
    done = [name for name, state in outcome.states.items() if state == "done"]
    for line in merge_warnings((name, text) for name in done for text in run.artifact(name).manifest["warnings"]):
        console.print(f"[yellow]warning:[/] {printable(line)}")
