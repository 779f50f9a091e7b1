"""One plot: as SVG in a page, colored by the page's own variables, and as files that read on white and on black.

Every plot has the same width, so that letters and lines have one size on a page. Matplotlib is imported when the first
is drawn.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Tones:
    """The colors of a plot."""

    ink: str
    soft: str
    rule: str
    accent: str
    warn: str
    ground: str


IN_PAGE = Tones("#010101", "#020202", "#030303", "#040404", "#050505", "#060606")
"""Stand-ins: in the page each becomes the CSS variable of the same name, so that light and dark both work."""
IN_FILES = Tones("#77818c", "#808992", "#8c959f44", "#0f9288", "#c9662f", "#d0d7de")
"""Tones that read on white and on GitHub's dark background (contrast of at least 3 for text)."""
WIDE, NARROW = 8.6, 4.2
"""Inches of a plot on a screen and on a phone: at the width of the page (62rem) letters of 9 points read as its text
does."""


@dataclass(frozen=True)
class Plot:
    """One plot, drawn for two widths.

    Attributes:
        name: File name without ending.
        title: What it shows, for people who cannot see it.
        draw: Draws it; the arguments say whether for a narrow screen, and in which colors.
    """

    name: str
    title: str
    draw: Callable[[bool, Tones], Figure]

    def inline(self, narrow: bool) -> str:
        """Return the drawing as an SVG element without anything that could clash with its neighbours."""
        text = _svg(self.draw(narrow, IN_PAGE))
        # ids of matplotlib repeat from plot to plot: a clip path of another one would be taken
        prefix = f"{self.name}-{'n' if narrow else 'w'}-"
        text = re.sub(r'\bid="', f'id="{prefix}', text)
        text = re.sub(r'(url\(|href=")#', rf"\g<1>#{prefix}", text)
        for tone in fields(Tones):
            text = text.replace(getattr(IN_PAGE, tone.name), f"var(--{tone.name})")
        # the page's own font; only size and weight are kept
        text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
        text = re.sub(r"font: (\d+) ([\d.]+)px [^;\"]*", r"font-weight: \1; font-size: \2px", text)
        start = text.index("<svg")
        label = self.title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
        return text[start:].replace("<svg", f'<svg role="img" aria-label="{label}"', 1)

    def save(self, folder: Path) -> None:
        """Write ``<name>.svg`` and ``<name>.png``."""
        figure = self.draw(False, IN_FILES)
        (folder / f"{self.name}.svg").write_text(_svg(figure), encoding="utf-8")
        figure.savefig(folder / f"{self.name}.png", dpi=200, transparent=True, metadata={"Software": None})


def figure_of(
    tone: Tones, narrow: bool, panels: int, height: float, narrow_height: float | None = None, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """Return a figure in the style of the page with its axes: side by side, on a narrow screen below each other.

    Args:
        tone: Colors.
        narrow: Whether it is for a narrow screen.
        panels: Number of axes.
        height: Height in inches.
        narrow_height: Height of each panel on a narrow screen; by default the same.
        sharey: Panels side by side have one vertical scale.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    style = {
        "font.size": 9,
        "font.family": "sans-serif",
        "axes.edgecolor": tone.rule,
        "axes.labelcolor": tone.soft,
        "text.color": tone.ink,
        "xtick.color": tone.soft,
        "ytick.color": tone.ink,
        "axes.unicode_minus": True,
        "axes.formatter.useoffset": False,
    }
    with matplotlib.rc_context(style):
        rows, columns = (panels, 1) if narrow else (1, panels)
        size = (NARROW, rows * (narrow_height or height)) if narrow else (WIDE, height)
        figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(wspace=0.06, hspace=0.06))
        FigureCanvasAgg(figure)
        found = list(figure.subplots(rows, columns, squeeze=False, sharey=sharey and not narrow).ravel())
        for axes in found:
            axes.set_facecolor("none")
            axes.tick_params(length=0, pad=5)
            for side in axes.spines.values():
                side.set_visible(False)
    figure.patch.set_alpha(0)
    return figure, found


def title(axes: Axes, tone: Tones, text: str) -> None:
    """Write the title of a panel above its left end."""
    axes.set_title(text, loc="left", fontsize=9, color=tone.soft, pad=8)


def legend(axes: Axes) -> None:
    """Name what is drawn, each in its own color; nothing where nothing has a name."""
    handles, _ = axes.get_legend_handles_labels()
    if handles:
        axes.legend(frameon=False, fontsize=8.5, labelcolor="linecolor", handlelength=1.2)


def _svg(figure: Figure) -> str:
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "w2s"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return re.sub(r"<metadata>.*?</metadata>\s*", "", buffer.getvalue(), flags=re.S)


def slug(name: str) -> str:
    """Return a name as it can stand in a file name."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-") or "unnamed"
