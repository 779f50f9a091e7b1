"""Writes a report: report.html (one file, no network), report.md, report.json, plots/*.svg and plots/*.png."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from w2s_align.evaluation import verdict
from w2s_align.reporting.data import ReportData
from w2s_align.reporting.drawings import draw_report
from w2s_align.reporting.markdown import render_markdown
from w2s_align.reporting.page import write_page
from w2s_align.reporting.report_page import render_report


def write_report(data: ReportData, out: Path) -> list[Path]:
    """Write the page, its Markdown and JSON twins, and every plot.

    Args:
        data: What to show. Where ``results`` is given without ``verdict``, the verdict is made here.
        out: Folder; it is made if it is not there. What is in it under the same names is replaced.

    Returns:
        The files, the page first.
    """
    if data.results is not None and data.verdict is None:
        data = replace(data, verdict=verdict(data.results))
    drawings = draw_report(data)
    markdown = render_markdown(data, drawings)
    return write_page(out, render_report(data, drawings), markdown, data.to_json(), drawings.all())
