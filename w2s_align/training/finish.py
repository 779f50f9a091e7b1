"""The end of a training: the model merged, opened again from disk, compared with what was trained, and described."""

from __future__ import annotations

import json
import shutil
import time
from typing import Any

from w2s_align.files import installed_version
from w2s_align.training.adapters import merge_adapter
from w2s_align.training.card import write_card
from w2s_align.training.checkpoints import BEST
from w2s_align.training.health import Alarm, Health
from w2s_align.training.models import save_model, weights_digest
from w2s_align.training.plan import TrainingPlan
from w2s_align.training.preflight import preflight
from w2s_align.training.quick_eval import read_questions
from w2s_align.training.report import FILE, TrainingReport, ends_of_curve
from w2s_align.training.verify import verify_model

LOGITS = "logits.safetensors"
"""What the trained model said about a few rows, which the saved one is held against."""

VERSIONS = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "deepspeed", "bitsandbytes")
"""Libraries that can change the weights; those that are installed are named in the report."""


def finish(plan: TrainingPlan) -> TrainingReport:
    """Merge, verify and describe what was trained, and remove what only the training needed.

    Args:
        plan: The training; its processes have left the model, or its adapter, in the output folder.

    Raises:
        UserError: The saved model equals its start, or is not the one that was trained.
    """
    from safetensors.torch import load_file

    if plan.layout.name == "external" and plan.layout.stage == 3:
        from transformers.integrations.deepspeed import unset_hf_deepspeed_config

        unset_hf_deepspeed_config()  # a model loaded from here on is whole
    begun = time.monotonic()
    done = json.loads((plan.out / "trained" / FILE).read_text())
    adapter = plan.settings.adapter
    if adapter:
        save_model(merge_adapter(plan.start, plan.out / "adapter"), plan.start, plan.out, plan.save_dtype)
    logits = load_file(plan.out / "trained" / LOGITS)
    verified = verify_model(
        plan.out / "model",
        plan.start,
        plan.save_dtype,
        plan.data.probes,
        [logits[str(i)] for i in range(len(logits))],
        dtype=plan.dtype,
        quantized=adapter is not None and adapter.load_in_4bit,
        seed=plan.seed,
    )
    health = Health(alarms=done["alarms"])
    if not adapter and not plan.settings.trains_head_alone:
        health.saved(done["steps"], verified["changed_share"], plan.save_dtype)
    for alarm in health.alarms:
        print(f"alarm at step {alarm['step']}: {alarm['message']}", flush=True)
    report = _describe(plan, done, verified, health.alarms, done["seconds"] + time.monotonic() - begun)
    write_card(report, plan.method)
    report.save(plan.out)
    # An adapter on top of a merged one fits no base that anybody has: it is kept merged alone.
    for left in ("checkpoints", "cache", "trained", "start", *(["adapter"] if _from_adapter(plan) else [])):
        shutil.rmtree(plan.out / left, ignore_errors=True)
    (plan.out / BEST).unlink(missing_ok=True)
    return report


def _from_adapter(plan: TrainingPlan) -> bool:
    """Say whether the start was an adapter, which was merged into its base first."""
    return plan.start.path != plan.start.source and plan.start.adapter is None


def _describe(
    plan: TrainingPlan, done: dict[str, Any], verified: dict[str, Any], alarms: list[Alarm], seconds: float
) -> TrainingReport:
    """Return what is known of a training: ``done`` is what :func:`~w2s_align.training.loop.train_here` left."""
    notes = [*plan.settings.advice(), *plan.data.notes, *done["notes"]]
    adapter = plan.settings.adapter
    if adapter is not None and adapter.load_in_4bit:
        notes.append(
            f"Merged into the full-precision base, logits moved by {verified['logit_error']:.2g} of the largest one: "
            "what the 4 bits cost."
        )
    return TrainingReport(
        method=plan.method.name,
        start=plan.start.source,
        model_dir=str(plan.out / "model"),
        adapter_dir=str(plan.out / "adapter") if adapter and not _from_adapter(plan) else None,
        settings=plan.settings.model_dump(mode="json", exclude={"quick_task": {"prompts"}}),  # a path; see digests
        seed=plan.seed,
        steps=done["steps"],
        epochs=done["epochs"],
        rows=plan.rows,
        batch={
            "batch_size": plan.settings.batch_size,
            "processes": plan.layout.processes,
            "micro_batch_size": plan.micro_batch_size,
            "accumulation": plan.accumulation,
        },
        launch=plan.layout.name,
        preflight=preflight(plan),
        digests=_digests(plan),
        counts=plan.counts,
        lengths=plan.data.lengths,
        preview=plan.data.preview,
        metrics=ends_of_curve(done["rows"]),
        held_out=done["held_out"],
        alarms=alarms,
        notes=notes,
        verified={**verified, "moved_in_first_update": done["moved_share"]},
        dtype=plan.dtype,
        save_dtype=plan.save_dtype,
        tokens=int(sum(row.get("tokens", 0) for row in done["rows"])),
        seconds=seconds,
        resumed_from=done["resumed_from"],
        peak_memory=done["peak_memory"],
        versions={name: found for name in VERSIONS if (found := installed_version(name))},
    )


def _digests(plan: TrainingPlan) -> dict[str, str]:
    """Return what names the content of all that the weights were made of."""
    found = {"data": plan.data.tokens_digest, "start": weights_digest(plan.start.path)}
    if plan.start.adapter is not None:
        found["start_adapter"] = weights_digest(plan.start.adapter)
    return found | ({"quick_task": read_questions(plan).digest} if plan.settings.quick_task else {})
