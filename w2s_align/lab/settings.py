"""The options of a lab model, as typed groups. Imports nothing heavy: a recipe is checked in an instant."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from w2s_align.records import Settings

TaskName = Literal["lab/addition", "lab/subtraction"]
HEAD_WIDTHS = (32, 48)


class LabModel(Settings):
    """What a lab model is: its task, its author's weakness, its size, its training. All of it changes the weights."""

    task: TaskName = "lab/addition"
    """The task that the model learns: ``lab/addition`` or ``lab/subtraction`` of 4-digit numbers, column by column."""

    slip: float = Field(0.0, ge=0.0, le=1.0)
    """Probability that the author of the training solutions forgets a carry (or borrow), at each one. A model learns
    the habit with its probability: greedy decoding always forgets when slip is above one half."""

    layers: int = Field(2, ge=1, le=16)
    """Number of transformer layers. One layer cannot do the tasks: finding a digit by its column takes two."""

    width: int = Field(64, ge=32, le=1024)
    """Hidden size: a multiple of 32 or 48, because attention heads are 32 wide, else 48."""

    steps: int = Field(800, ge=1)
    """Optimizer steps, each on a batch of problems that were never seen before."""

    batch_size: int = Field(32, ge=1)
    """Problems per step."""

    learning_rate: float = Field(5e-3, gt=0.0)
    """Peak learning rate of AdamW; 50 steps of warm-up, then a cosine to zero."""

    seed: int = Field(0, ge=0)
    """Seed of the initial weights and of the training problems."""

    @field_validator("width")
    @classmethod
    def _heads_fit(cls, width: int) -> int:
        if not any(width % head == 0 for head in HEAD_WIDTHS):
            raise ValueError(f"attention heads are 32 or 48 wide, and {width} is a multiple of neither; try 64 or 96")
        return width


class LabResources(Settings):
    """How the training runs. Nothing here changes what is learnt; another thread count may change the last bits."""

    threads: int | None = Field(None, ge=1)
    """CPU threads; None keeps what PyTorch has chosen (``OMP_NUM_THREADS``)."""

    checkpoint_seconds: float = Field(3.0, ge=0.0)
    """Time between checkpoints, in seconds: as much work is lost when the process is killed."""
