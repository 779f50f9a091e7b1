"""Reporting: one page, a Markdown summary, JSON and plots from the numbers of a study.

    from w2s_align.reporting import ReportData, write_report

    write_report(ReportData(title="delta-gsm8k", results=results), Path("report"))

Reads ReportData, writes report.html (one file, works without a network), report.md, report.json and
plots/. Importing this package is cheap: matplotlib, jinja2 and rich are imported when a report is written.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from w2s_align.reporting.data import Alarm, Answer, PairAudit, ReportData, Sample, StepCost, TrainingCurve
    from w2s_align.reporting.samples import collect_samples
    from w2s_align.reporting.terminal import summary_table
    from w2s_align.reporting.write import write_report

_MODULE_OF = {
    "Alarm": "data",
    "Answer": "data",
    "PairAudit": "data",
    "ReportData": "data",
    "Sample": "data",
    "StepCost": "data",
    "TrainingCurve": "data",
    "collect_samples": "samples",
    "summary_table": "terminal",
    "write_report": "write",
}
__all__ = [
    "Alarm",
    "Answer",
    "PairAudit",
    "ReportData",
    "Sample",
    "StepCost",
    "TrainingCurve",
    "collect_samples",
    "summary_table",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value
