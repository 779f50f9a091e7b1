"""Errors for people, as one panel."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback

from rich.panel import Panel
from rich.text import Text

from w2s_align.errors import UserError
from w2s_align.terminal.console import open_console

LONGEST_LINE = 300
"""Characters of an unforeseen error that are shown; the log has all of them."""


def show_bug(error: Exception) -> None:
    """Show an error that nobody foresaw in one line, and keep its traceback in a file.

    Set the environment variable W2S_TRACEBACK to see it at once.
    """
    text = "".join(traceback.format_exception(error))
    console = open_console(stderr=True, highlight=False)
    if os.environ.get("W2S_TRACEBACK"):
        console.print(text, markup=False)
    with tempfile.NamedTemporaryFile(
        "w", prefix="w2s-", suffix=".log", delete=False, encoding="utf-8", errors="replace"
    ) as file:
        file.write(f"{' '.join(sys.argv)}\n{text}")
    said = " ".join(str(error).split())[:LONGEST_LINE]
    console.print(f"This is a bug of w2s: {type(error).__name__}: {said}", markup=False)
    console.print(f"Please report it with this log: {file.name}", markup=False, soft_wrap=True)


def show_error(error: UserError) -> None:
    """Show everything that is wrong at once, on standard error."""
    text = Text()
    for index, problem in enumerate(error.problems):
        text.append("\n\n" if index else "")
        text.append(f"{problem.where}  " if problem.where else "", style="dim")
        text.append(" ".join(part for part in (problem.what, problem.why) if part))
        text.append(f"\n  {problem.fix}" if problem.fix else "", style="bold")
    open_console(stderr=True, soft_wrap=False).print(Panel(text, border_style="red", title="w2s", title_align="left"))
