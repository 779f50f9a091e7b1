"""The model card of a trained model: where it comes from, how it was trained, what the training looked like.

Reads a :class:`TrainingReport`; writes ``README.md`` into the model's folder. What is known only after the training,
the numbers of the evaluation and the recipe around it, is added by the report (w2s_align/reporting/cards.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from w2s_align.training.method import Method
from w2s_align.training.report import TrainingReport


def write_card(report: TrainingReport, method: Method) -> Path:
    """Write the model card of a training and return its path.

    Args:
        report: What the training did.
        method: Its kind.
    """
    from huggingface_hub import ModelCard, ModelCardData

    is_hub_id = not Path(report.start).exists()
    of_start = {} if is_hub_id else _metadata(Path(report.start))
    data = ModelCardData(
        base_model=report.start if is_hub_id else of_start.get("base_model"),
        license=of_start.get("license"),
        library_name="transformers",
        pipeline_tag=method.head.pipeline_tag,
        tags=[method.library, report.method, "weak-to-strong"] + (["lora"] if report.adapter_dir else []),
    )
    name = report.start if is_hub_id else Path(report.start).name
    how = method.title
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {name}, {how}",
        f"Trained from `{name}` by {how} ({method.library} {report.versions[method.library]}) for {report.steps} "
        f"steps of {report.batch['batch_size']} rows, seed {report.seed}.",
        f"Weights and configuration of the start have the SHA-256 `{report.digests['start']}`.",
        "## Data",
        f"SHA-256 of the token ids that were trained on: `{report.digests['data']}`.",
        _table(["rows", "number"], [[key, value] for key, value in report.counts.in_words().items()]),
        _table(
            ["tokens", "min", "mean", "max", "total"],
            [
                [side, size["min"], f"{size['mean']:.1f}", size["max"], size["total"]]
                for side, size in report.lengths.items()
            ],
        ),
        "## Settings",
        _table(["setting", "value"], [[key, f"`{value}`"] for key, value in report.settings.items()]),
        "## Metrics",
        _table(
            ["mean over", "first tenth of steps", "last tenth"],
            [
                [key, f"{first:.4g}", f"{report.metrics['last'].get(key, float('nan')):.4g}"]
                for key, first in report.metrics.get("first", {}).items()
            ],
        ),
    ]
    warnings = [f"- step {a['step']}, {a['kind']}: {a['message']}" for a in report.alarms]
    warnings += [f"- {note}" for note in report.notes]
    if warnings:
        parts += ["## Look at this", "\n".join(warnings)]
    parts += ["## Versions", ", ".join(f"{key} {value}" for key, value in report.versions.items())]
    path = Path(report.model_dir) / "README.md"
    ModelCard("\n\n".join(parts) + "\n", ignore_metadata_errors=True).save(path)
    return path


def _metadata(start: Path) -> dict[str, Any]:
    """Return what the card of a local start model says to the hub, e.g. license and base model."""
    from huggingface_hub import ModelCard

    if not (start / "README.md").is_file():
        return {}
    return dict(vars(ModelCard.load(start / "README.md", ignore_metadata_errors=True).data))


def _table(header: list[str], rows: list[list[Any]]) -> str:
    lines: list[list[Any]] = [list(header), ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
