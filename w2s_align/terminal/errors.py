"""Errors for people, as one panel."""

from __future__ import annotations

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from w2s_align.errors import UserError


def show_error(error: UserError) -> None:
    """Show everything that is wrong at once, on standard error."""
    text = Text()
    for index, problem in enumerate(error.problems):
        text.append("\n\n" if index else "")
        text.append(f"{problem.where}  " if problem.where else "", style="dim")
        text.append(" ".join(part for part in (problem.what, problem.why) if part))
        text.append(f"\n  {problem.fix}" if problem.fix else "", style="bold")
    Console(stderr=True, soft_wrap=False).print(Panel(text, border_style="red", title="w2s", title_align="left"))
