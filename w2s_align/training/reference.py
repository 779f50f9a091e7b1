"""Log-probabilities of the reference, computed once for all trainings that share them.

Reads and writes ``<cache_dir>/<key>/``: two numbers for each row, in an Arrow file that TRL made. The key is made of
what changes them: the start model's weights, the token ids and where the responses begin (so template, tokenizer and
truncation), the loss family, the precision of the arithmetic and of the base. Beta, learning rate, loss, seed, adapter
and the number of processes are not part of it. TRL computes them (its own cache knows the seed of an adapter, and
under ZeRO-3 not the weights).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s_align.errors import UserError
from w2s_align.training.models import weights_digest
from w2s_align.training.plan import TrainingPlan, is_main

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass
class Reference:
    """The cached log-probabilities of one training's reference.

    Attributes:
        folder: Where they are kept, or None when they are not.
        adapter: Whether an adapter is trained.
        known: Whether they were there already.
    """

    folder: Path | None
    adapter: bool = False
    known: bool = False

    @classmethod
    def of(cls, plan: TrainingPlan, family: dict[str, Any]) -> Reference:
        """Return the place of a plan's reference log-probabilities.

        Args:
            plan: The training.
            family: What its loss adds to the key.

        Raises:
            UserError: The cache cannot be written; said before anything is computed.
        """
        if plan.resources.cache_dir is None or not plan.resources.precompute_ref_log_probs:
            return cls(None)
        folder = Path(plan.resources.cache_dir).expanduser() / reference_key(plan, family)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f"probe-{uuid.uuid4().hex}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"The cache {plan.resources.cache_dir} cannot be written: {error.strerror}.",
                fix="Give another cache_dir, or none.",
            ) from None
        return cls(folder, plan.settings.adapter is not None)

    def offer(self, rows: Dataset, held_out: Dataset | None) -> tuple[Dataset, Dataset | None, bool]:
        """Put known log-probabilities where the trainer finds them.

        Without an adapter that is TRL's own cache beside the rows, under TRL's own name. With one, TRL's name knows
        the adapter's random start, that is, the seed; the log-probabilities then go beside the rows as columns.

        Returns:
            The rows, the held-out rows, and whether they carry the log-probabilities.
        """
        parts = {"train": rows, "held_out": held_out}
        files = {name: self._files(name, part) for name, part in parts.items() if part is not None}
        self.known = all(files.values())
        if not self.known:
            return rows, held_out, False
        if not self.adapter:
            beside = Path(rows.cache_files[0]["filename"]).parent
            for name, file in ((name, file) for name, found in files.items() for file in found):
                _copy(file, beside / file.name.removeprefix(f"{name}-{len(parts[name])}-"))
            return rows, held_out, False
        from datasets import Dataset, concatenate_datasets

        joined = {
            name: concatenate_datasets([part, Dataset.from_file(str(files[name][0]))], axis=1)
            for name, part in parts.items()
            if part is not None
        }
        return joined["train"], joined.get("held_out"), True

    def take(self, trainer: Any) -> None:
        """Keep what a trainer has computed, or tell it that its rows carry what was known.

        TRL reads the columns only when it has made them itself, or when this attribute says so: the one place where
        more than its public surface is used. If a later TRL ignores it, a reference is computed in every step, and the
        numbers stay right.
        """
        if self.known and self.adapter:
            trainer.precompute_ref_logps = True
        elif self.folder is not None and not self.known and is_main():
            for name, part in (("train", trainer.train_dataset), ("held_out", trainer.eval_dataset)):
                if part is not None:
                    made = Path(part.cache_files[-1]["filename"])  # TRL joins its columns last
                    _copy(made, self.folder / f"{name}-{len(part)}-{made.name}")
        _free_engine(trainer)

    def _files(self, name: str, rows: Dataset) -> list[Path]:
        return [] if self.folder is None else sorted(self.folder.glob(f"{name}-{len(rows)}-*.arrow"))


def _free_engine(trainer: Any) -> None:
    """Take the hooks of the engine that computed the reference off the model.

    Under ZeRO-3 TRL wraps the model in an inference engine for that, and the training's engine wraps it again: the
    first one's hooks stay, gather every parameter a second time, and find other modules than they have recorded. After
    a single pass that ends in "IndexError: pop from an empty deque" (compare trl#4899, docs/upstream.md).
    """
    engine = getattr(trainer, "_precompute_engine", None)
    if engine is not None and hasattr(engine.optimizer, "destroy"):
        engine.optimizer.destroy()
        trainer._precompute_engine = None


def _copy(source: Path, target: Path) -> None:
    partial = target.with_suffix(f".{uuid.uuid4().hex}.partial")
    shutil.copyfile(source, partial)
    partial.replace(target)


def reference_key(plan: TrainingPlan, family: dict[str, Any]) -> str:
    """Return the digest of everything that changes the reference log-probabilities of a plan, and of nothing else."""
    adapter = plan.settings.adapter
    material = {
        "weights": weights_digest(plan.start.path),
        "tokens": plan.data.tokens_digest,
        "family": family,
        "arithmetic": plan.dtype,
        "base": "4 bits" if adapter and adapter.load_in_4bit else plan.dtype if adapter else "float32",
    }
    if plan.start.adapter is not None:
        material["adapter"] = weights_digest(plan.start.adapter)
    return hashlib.sha256(json.dumps(material, sort_keys=True).encode()).hexdigest()[:32]
