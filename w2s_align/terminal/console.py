"""The consoles that everything is printed with: nothing that comes from data can steer the terminal.

Model names, tasks, roles and texts come from files of other people, and may hold escape sequences that rename the
window, clear the screen or type commands. Rich knows which text is ours to color; whatever control character is left
in a text is shown as a replacement character.
"""

from __future__ import annotations

import re
from typing import Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.segment import Segment

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and line feed, the marks that turn the direction of writing, and half surrogate pairs."""


def open_console(**options: Any) -> Console:
    """Return a console that shows control characters of data as replacement characters.

    Args:
        **options: As for ``rich.console.Console``.
    """
    console = Console(**options)
    console.push_render_hook(_CleanHook())
    return console


def clean(text: str) -> str:
    """Return a text in which no character can steer a terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


class _CleanHook(RenderHook):
    """Cleans everything before it is drawn."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Wrap what is to be drawn."""
        return [_Clean(renderable) for renderable in renderables]


class _Clean:
    """Something to draw, cleaned."""

    def __init__(self, renderable: ConsoleRenderable) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._renderable, options):
            # Control segments move the cursor of a progress bar; they are rich's own.
            yield segment if segment.control else Segment(clean(segment.text), segment.style)
