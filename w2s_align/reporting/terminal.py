"""The summary for the command line: the arms of an evaluation as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from w2s_align.reporting.text import Words, p_value, role_name, setting_name

if TYPE_CHECKING:
    from rich.table import Table

    from w2s_align.evaluation import Results


def summary_table(results: Results) -> Table:
    """Return the arms with intervals and differences to the baseline."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    words = Words(results.unit)
    table = Table(box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    table.add_column("arm", no_wrap=True)
    if not results.only_compares:
        table.add_column("role", style="dim")
    for setting in results.settings:
        table.add_column(setting_name(setting), justify="right")  # wraps in a narrow window: nothing is cut away
        table.add_column(f"{100 * results.level:.0f}%", justify="right", style="dim")
        table.add_column(f"against {results.reference}", justify="right")
    for arm in results.arms:
        cells: list[Text | str] = [Text(arm.name)] + ([] if results.only_compares else [role_name(arm.role)])
        for setting in results.settings:
            e = arm.settings[setting].estimate
            c = results.comparison(setting, arm.name, results.baseline)
            against = f"{words.signed(c.difference.value)}  p {p_value(c.p_holm)}" if c else ""
            cells += [words.value(e.value), words.interval(e.low, e.high), against]
        table.add_row(*cells, style="bold" if arm.role == "treatment" else "")
    return table
