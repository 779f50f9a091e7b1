"""The builder of all pages: one HTML file in one style, with its Markdown and JSON twins and its plots beside it.

Every value is escaped, except our own style, script, plots and inert JSON. A content security policy allows no request
of any kind and no script but our own (by its digest), so untrusted model output has nothing to work with. Files are
replaced as a whole: a reader never sees half of one.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s_align.reporting.figure import Plot
from w2s_align.reporting.text import (
    BY_NAMES,
    direction_class,
    duration,
    length_name,
    number,
    p_value,
    part_details,
    percent,
    role_name,
    setting_name,
    unbroken,
)

if TYPE_CHECKING:
    from jinja2 import Environment


def render(
    name: str,
    *,
    parts: Sequence[tuple[str, str]],
    caveats: Sequence[str] = (),
    status: str = "",
    script: str = "",
    **context: Any,
) -> str:
    """Return the HTML of a page.

    Args:
        name: A template that extends ``base.html.j2``.
        parts: Id and title of every section, for the navigation.
        caveats: What a reader must know first.
        status: ``improved``, ``worse``, ...: colors the headline.
        script: A file of ``templates/`` that the page runs; "" for none.
        context: What the template shows.
    """
    code = _file(script) if script else ""
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    allowed = f" script-src 'sha256-{digest}';" if code else ""
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline';{allowed} img-src data:; base-uri 'none'; form-action 'none'"
    )
    shared = {"parts": parts, "caveats": caveats, "status": status, "policy": policy, "script": code}
    return _environment().get_template(name).render(style=_file("page.css"), **shared, **context)


def write_page(out: Path, html: str, markdown: str, numbers: Mapping[str, Any], plots: Sequence[Plot]) -> list[Path]:
    """Write report.html, report.md, report.json and plots/.

    Args:
        out: Folder; made if it is not there.
        html: The page.
        markdown: The same as Markdown.
        numbers: The same as plain values; JSON has no NaN, so a diverged loss becomes null.
        plots: Saved as SVG and PNG.

    Returns:
        The files, the page first.
    """
    folder = out / "plots"
    folder.mkdir(parents=True, exist_ok=True)
    for plot in plots:
        plot.save(folder)
    plain = json.dumps(_without_nan(numbers), ensure_ascii=False, indent=1, allow_nan=False)
    written = [
        replace_text(out / f"report.{ending}", text)
        for ending, text in (("html", html), ("md", markdown), ("json", plain))
    ]
    return written + [folder / f"{plot.name}.{ending}" for plot in plots for ending in ("svg", "png")]


def replace_text(path: Path, text: str) -> Path:
    """Write a file so that a reader sees the old one or the new one, never half of it."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8", errors="replace")  # model output may hold half a surrogate pair
    partial.replace(path)
    return path


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    made = Environment(
        loader=FunctionLoader(_file), autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    made.filters.update(
        by_name=BY_NAMES.__getitem__,
        count="{:,}".format,
        duration=duration,
        length_name=length_name,
        p=p_value,
        percent=percent,
        role_name=role_name,
        setting_name=setting_name,
        unbroken=unbroken,
    )
    made.globals.update(direction_class=direction_class, number=number, part_details=part_details)
    return made


@cache
def _file(name: str) -> str:
    """Return a file of templates/."""
    return (files("w2s_align.reporting") / "templates" / name).read_text(encoding="utf-8").strip()


def _without_nan(value: object) -> object:
    """Return plain values with null for NaN and infinities."""
    if isinstance(value, Mapping):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and value - value != 0 else value
