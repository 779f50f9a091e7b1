"""What a plan looks like in the terminal: one line for each artifact, and below it what it takes and costs in all.

Reads a plan and its estimate; runs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Group
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from w2s_align.estimates.costs import (
    ANSWER_SHARE,
    GENERATION_USE,
    PROMPT_TOKENS,
    TRAINING_USE,
    Costs,
    Range,
    StepEstimate,
)
from w2s_align.recipe import Recipe
from w2s_align.runs.plan import Planned, Status, notes

GATED = ("meta-llama/", "google/gemma")
"""Models of the hub that can be downloaded only after their license was accepted there."""
COLOR: dict[Status, str] = {"cached": "green", "started": "yellow", "to do": "default"}


TOKEN_UNITS = ((1e9, 1e9, " G"), (1e6, 1e6, " M"), (1e3, 1e3, " k"), (0.0, 1.0, ""))
TIME_UNITS = ((5400.0, 3600.0, " h"), (90.0, 60.0, " min"), (0.0, 1.0, " s"))
"""From which value on a unit is used, its size, and how it is written."""


@dataclass
class _Line:
    """One line of the table: an artifact, or all the artifacts that a step implies."""

    name: str
    items: list[Planned]
    estimates: list[StepEstimate]


def plan_view(
    recipe: Recipe, planned: Mapping[str, Planned], costs: Costs, *, every: bool = False, width: int = 80
) -> Group:
    """Return the plan with its cost.

    Args:
        recipe: The recipe.
        planned: Its plan.
        costs: Its estimate.
        every: One line for each artifact, also for each training seed and for those that an evaluation implies.
        width: Columns of the window; what is needed least is left out where it is too narrow.
    """
    done = sum(item.status == "cached" for item in planned.values())
    number = f"{len(planned)} artifact{'s' if len(planned) != 1 else ''}"
    rows = [_cells(line) for line in _lines(planned, costs, every)]
    names = ["step", "kind", "status", "rows", "tokens", "steps", "per GPU" if costs.hardware else "memory", "time"]
    shown, gap = _columns([*names, "key"], rows, width)
    columns = (Column(head, no_wrap=True) for head in shown)
    table = Table(*columns, box=None, header_style="dim", padding=(0, gap, 0, 0))
    table.columns[0].no_wrap = False
    table.columns[0].overflow = "fold"
    table.title = f"{recipe.name}: {number}, {done} cached"
    table.title_justify = "left"
    for row in rows:
        table.add_row(*(cell for name, cell in zip([*names, "key"], row, strict=True) if name in shown))
    return Group(table, Text.from_markup("\n".join(["", *_totals(planned, costs)])))


def _columns(names: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> tuple[list[str], int]:
    """Return the columns to show, and how many spaces are between them.

    Empty ones are left out; where a window is too narrow, also those that are needed least.
    """
    cells = dict(zip(names, zip(*rows, strict=True), strict=True))
    wide = {name: [cell_len(Text.from_markup(cell).plain) for cell in found] for name, found in cells.items()}
    shown = {name: max(*sizes, len(name)) for name, sizes in wide.items() if any(sizes)}

    def fits(gap: int) -> bool:
        return sum(size + gap for size in shown.values()) <= width

    gap = 2
    for name in ("key", "steps", *(("status",) if len(set(cells["status"])) == 1 else ())):
        if not fits(gap):
            shown.pop(name, None)
    for name in ("", "kind", "memory", "per GPU"):
        if not fits(gap):
            shown.pop(name, None)
            gap = 1
    return [name for name in names if name in shown], gap


def _lines(planned: Mapping[str, Planned], costs: Costs, every: bool) -> Iterator[_Line]:
    groups: dict[str, _Line] = {}
    for name, item in planned.items():
        step, _, seed = name.partition("@")
        shown = name if every else f"{item.node.step}/*" if item.node.implied else f"{step}@*" if seed else name
        line = groups.setdefault(f"{shown} {item.node.config.kind}", _Line(shown, [], []))
        line.items.append(item)
        line.estimates.append(costs.steps[name])
    for line in groups.values():
        if len(line.items) == 1:
            line.name = line.items[0].node.name
        yield line


def _cells(line: _Line) -> Sequence[str]:
    first, many = line.items[0], len(line.items) > 1
    states = [item.status for item in line.items]
    if many and len(set(states)) > 1:
        state = f"{states.count('cached')} of {len(states)} cached"
    else:
        state = f"[{COLOR[states[0]]}]{states[0]}[/]"
    rows = [e.rows for e in line.estimates if e.rows is not None]
    exact = all(e.exact for e in line.estimates)
    tokens = [e.tokens for e in line.estimates if e.tokens is not None]
    seconds = [e.seconds for e in line.estimates if e.seconds is not None]
    steps = [e.steps for e in line.estimates if e.steps is not None]
    largest = max(line.estimates, key=lambda e: e.memory or 0)
    memory = f"{largest.memory / 1e9:.0f} GB" if largest.memory else ""
    if any(e.fits is False for e in line.estimates):
        memory = f"[red]{memory}: too much[/]"
    return (
        escape(line.name),
        first.node.config.kind + (f" x {len(line.items)}" if many else ""),
        state,
        ("" if exact else "≤ ") + f"{sum(rows):,}" if rows else "",
        _in_one_unit(_sum(tokens), TOKEN_UNITS, 3) if tokens else "",
        f"{sum(steps):,}" if steps else "",
        memory,
        _in_one_unit(_sum(seconds), TIME_UNITS, 2) if seconds else "",
        "" if many else first.key[:8],
    )


def _totals(planned: Mapping[str, Planned], costs: Costs) -> list[str]:
    lines = []
    for name, found in costs.steps.items():
        if found.parts and found.fits is False:
            made_of = ", ".join(f"{part} {size / 1e9:.1f}" for part, size in found.parts.items())
            lines.append(f"[red]{escape(name)} does not fit[/] ({made_of} GB). What fits: {escape(found.advice)}.")
        elif found.advice:
            lines.append(f"[yellow]{escape(name)}[/]: {escape(found.advice)}.")
    lines = list(dict.fromkeys(lines))
    lines += [f"[yellow]{escape(step)}:[/] {escape(note)}" for step, note in notes(planned)]
    if costs.downloads:
        size = sum(costs.downloads.values()) / 1e9
        models = ", ".join(f"{escape(model)} {size / 1e9:.1f}" for model, size in costs.downloads.items())
        lines.append(f"[bold]To download:[/] {size:.0f} GB that are not in the hub cache ({models}).")
    lines += _access(costs)
    if costs.hardware is None:
        lines.append("No GPU here, so times are not estimated. To plan for another machine: --gpus 8xH100")
        return lines
    low, high = costs.gpu_hours
    price = costs.price or (0.0, 0.0)
    lines.append(
        f"[bold]On {costs.hardware}:[/] {_range((low, high), number)} GPU-hours, "
        f"about {_range(price, number)} US dollars at {_range(costs.hardware.price, lambda p: f'{p:g}')} an hour."
    )
    answers, training, generation = (
        f"{low:.0%} to {high:.0%}" for low, high in (ANSWER_SHARE, TRAINING_USE, GENERATION_USE)
    )
    lines.append(
        f"[dim]Assumed where nothing has been counted: prompts of {PROMPT_TOKENS[0]} to {PROMPT_TOKENS[1]} tokens; "
        f"answers of {answers} of their limit; training at {training} of the GPU's arithmetic, generation at "
        f"{generation} of arithmetic or bandwidth. ≤: upper limit (filters, lengths).[/]"
    )
    return lines


def _access(costs: Costs) -> list[str]:
    """Say which models may not be available: gated ones, those missing on the hub, and those of unknown shape."""
    lines = []
    if gated := [model for model in (*costs.downloads, *costs.unknown) if model.startswith(GATED)]:
        lines.append(
            f"[yellow]Gated:[/] {escape(', '.join(gated))}. Accept the license on the model's page of the hub, and "
            "log in with `hf auth login`."
        )
    if costs.unread:
        lines.append(
            f"[yellow]Not found on the hub:[/] {escape(', '.join(costs.unread))}. It does not exist, is gated, or "
            "there is no network access; `w2s doctor` tells which."
        )
    for model, close in costs.unknown.items():
        meant = f"Did you mean {escape(close)}? Otherwise:" if close else "With network access, run"
        lines.append(
            f"[yellow]Not estimated:[/] the architecture of {escape(model)} is not known here. {meant} "
            f"`hf download {escape(model)} config.json`."
        )
    return lines


def _sum(ranges: Sequence[Range]) -> Range:
    return sum(r[0] for r in ranges), sum(r[1] for r in ranges)


def _range(values: Range, show: object) -> str:
    low, high = (show(value) for value in values)  # type: ignore[operator]
    return low if low == high else f"{low} to {high}"


def number(value: float) -> str:
    """Return a number with two significant digits."""
    return _rounded(value, 2)


def _in_one_unit(values: Range, units: Sequence[tuple[float, float, str]], digits: int) -> str:
    """Return a range in the unit that fits its upper end: ``30.7 to 154 M``."""
    low, high = values
    size, unit = next((size, unit) for least, size, unit in units if high >= least)
    ends = [_rounded(value / size, digits) for value in (low, high)]
    return " to ".join(dict.fromkeys(ends)) + unit


def _rounded(value: float, digits: int) -> str:
    """Return a number with so many significant digits, and whole numbers in full."""
    return f"{float(f'{value:.{digits}g}'):,g}"
