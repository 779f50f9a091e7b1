"""The page: one HTML file from ReportData, made by templates/report.html.j2.

Everything is escaped except our own style, script, drawings and the samples' inert JSON. A content security policy
allows exactly this one script (by its digest) and no request of any kind, so untrusted model output has nothing to
work with.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import Any

from w2s_align.reporting.data import ReportData, TrainingCurve
from w2s_align.reporting.drawings import Drawings
from w2s_align.reporting.plots import Plot
from w2s_align.reporting.samples import embed
from w2s_align.reporting.text import Words, filters

MOST_CURVES = 12
"""Trainings drawn on the page; the others are in plots/, and the page says so."""

OUTCOMES = (
    ("all", "All"),
    ("fixed", "Fixed"),
    ("broken", "Broken"),
    ("both wrong", "Both wrong"),
    ("both right", "Both right"),
)


def render_page(data: ReportData, drawings: Drawings) -> str:
    """Return the HTML of a report; ``data.verdict`` is shown as given."""
    from jinja2 import Environment, StrictUndefined

    results = data.results
    words = Words(results["unit"] if results else "share")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters.update(filters(words))
    script = template("page.js")
    context: dict[str, Any] = {
        "data": data,
        "results": results,
        "verdict": data.verdict,
        "share": words.unit == "share",
        "figures": _figures(data, words),
        "caveats": list(dict.fromkeys([*(data.verdict or {}).get("caveats", []), *data.warnings])),
        "drawings": drawings,
        "audits": list(zip(data.pairs, drawings.pairs, strict=True)),
        "curves": _curves(data, drawings),
        "outcomes": OUTCOMES,
        "style": template("page.css"),
        "script": script,
        "script_digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "parts": _parts(data),
        **_evaluation(results),
        **_samples(data),
        **_cost(data),
    }
    return environment.from_string(template("report.html.j2")).render(context)


@cache
def template(name: str) -> str:
    """Return a file of templates/."""
    return (files("w2s_align.reporting") / "templates" / name).read_text(encoding="utf-8").strip()


def _parts(data: ReportData) -> list[tuple[str, str]]:
    parts = [
        (data.results, [("arms", "Arms"), ("differences", "Paired differences")]),
        (data.results and data.results["breakdowns"], [("parts", "Tasks and difficulty")]),
        (data.pairs, [("pairs", "Pairs")]),
        (data.curves, [("training", "Training")]),
        (data.samples and data.results, [("samples", "Real answers")]),
        (data.steps, [("cost", "Cost")]),
        (data.recipe or data.versions, [("recipe", "Recipe and versions")]),
    ]
    return [entry for present, entries in parts if present for entry in entries]


def _figures(data: ReportData, words: Words) -> list[dict[str, Any]]:
    """The few numbers under the verdict: tuned, untouched, best teacher, delta gain."""
    results, found = data.results, data.verdict
    if results is None or not found or not found["arm"]:
        return []
    setting = found["setting"]
    arms = {arm["name"]: arm["settings"][setting]["estimate"] for arm in results["arms"]}
    gain = next((g for g in results["delta_gains"] if (g["setting"], g["arm"]) == (setting, found["arm"])), None)
    shown = [
        (f"{found['arm']}, the tuned student", found["arm"]),
        (f"{results['baseline']}, untouched", results["baseline"]),
    ]
    if gain:
        shown.append((f"{gain['teacher']}, the best teacher", gain["teacher"]))
    figures = [
        {"label": label, "value": words.value(arms[name]["value"]), "note": words.interval(arms[name]), "main": not i}
        for i, (label, name) in enumerate(shown)
    ]
    if gain:
        points = " points" if words.unit == "share" else ""
        note = f"{words.signed_interval(gain['difference'])}{points}"
        figures.append({"label": "Delta gain", "value": words.signed(gain["difference"]["value"]), "note": note})
    return [{"main": False, **figure} for figure in figures]


def _evaluation(results: dict[str, Any] | None) -> dict[str, Any]:
    if results is None:
        return {"pass_ks": {}, "selected": {}, "gaps": {}, "agreed": {}, "rates": {}}
    ks = {
        setting: sorted(
            {k for arm in results["arms"] for k in arm["settings"][setting]["pass_at"] if k != "1"}, key=int
        )
        for setting in results["settings"]
    }
    settings = results["settings"]
    return {
        "pass_ks": {setting: found[-1:] for setting, found in ks.items()},
        "selected": {
            s: [(arm["name"], one) for arm in results["arms"] for one in arm["settings"][s]["selections"]]
            for s in settings
        },
        "gaps": {s: [gap for gap in results["gaps"] if gap["setting"] == s] for s in settings},
        "rates": {s: [one for one in results["win_rates"] if one["setting"] == s] for s in settings},
        "agreed": {s: [one for one in results["agreements"] if one["setting"] == s] for s in settings},
    }


def _curves(data: ReportData, drawings: Drawings) -> list[tuple[TrainingCurve, Plot | None]]:
    """Return the curves to draw: all while they are few, else those with alarms first."""
    both = list(zip(data.curves, drawings.curves, strict=True))
    if len(both) > MOST_CURVES:
        both.sort(key=lambda entry: not entry[0].alarms)
    return both[:MOST_CURVES]


def _samples(data: ReportData) -> dict[str, Any]:
    total = data.samples_total if data.samples_total is not None else len(data.samples)
    if not data.samples or data.results is None:
        return {"samples_json": "", "samples_left": 0, "samples_total": total}
    treatments = [arm["name"] for arm in data.results["arms"] if arm["role"] == "treatment"]
    main = (data.verdict or {}).get("arm")
    treatments.sort(key=lambda name: name != main)
    text, fitted = embed(data.samples, data.results["baseline"], treatments, data.results["unit"])
    return {"samples_json": text, "samples_left": total - fitted, "samples_total": total}


def _cost(data: ReportData) -> dict[str, Any]:
    seconds = [step.seconds or 0.0 for step in data.steps]
    return {
        "total_seconds": sum(seconds),
        "new_seconds": sum(step.seconds or 0.0 for step in data.steps if not step.cached),
        "longest": max([*seconds, 1e-9]),
        "total_tokens": sum(step.tokens or 0 for step in data.steps),
        "total_gpu": sum(step.gpu_seconds or 0.0 for step in data.steps),
        "total_cost": sum(step.cost or 0.0 for step in data.steps),
    }
