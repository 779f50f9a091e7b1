"""The options of a lab model, as typed groups. Imports nothing heavy: a recipe is checked in an instant."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from w2s_align.records import Settings

TaskName = Literal["lab/addition", "lab/subtraction"]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
HEAD_WIDTHS = (32, 48)
"""Widths of an attention head, the first one that divides the hidden size: small, and supported by vLLM."""
CARRIES = 3
"""Carries that a problem of four digits can have, besides the one into a fifth digit, which nobody forgets."""


class LabModel(Settings):
    """A lab model: its task, its author's weakness, its size, its training. All of it changes the weights."""

    task: TaskName = "lab/addition"
    """The task that the model learns: ``lab/addition`` or ``lab/subtraction`` of 4-digit numbers, column by column."""

    slip: Probability | list[Probability] = 0.0
    """Probability that the author of the training solutions forgets a carry (or borrow): one for all, or one each for
    the carry into the tens, the hundreds and the thousands. The model learns to forget with this probability; greedy
    decoding always forgets where slip is above one half."""

    layers: int = Field(2, ge=1, le=16)
    """Number of transformer layers. One layer cannot learn the tasks: finding a digit by its column takes two."""

    width: int = Field(64, ge=32, le=1024)
    """Hidden size: a multiple of 32 or 48, because attention heads are 32 wide, else 48."""

    steps: int = Field(800, ge=0)
    """Optimizer steps, each on a fresh batch of problems; 0 leaves a model with random weights. Enough when the final
    loss is within 0.001 of its floor (see ``LabTraining``): 800 at width 64, 1200 at width 96. An under-trained model
    makes errors of its own, and preference tuning amplifies them."""

    batch_size: int = Field(32, ge=1)
    """Problems per step."""

    learning_rate: float = Field(5e-3, gt=0.0)
    """Peak learning rate of AdamW; 50 steps of warm-up, then a cosine to zero."""

    seed: int = Field(0, ge=0)
    """Seed of the initial weights and of the training problems."""

    @field_validator("slip")
    @classmethod
    def _one_slip_for_each_carry(cls, slip: float | list[float]) -> float | list[float]:
        if isinstance(slip, list) and len(slip) != CARRIES:
            raise ValueError(f"slip has {len(slip)} values; give one, or {CARRIES}: into tens, hundreds, thousands")
        return slip

    @property
    def slips(self) -> list[float]:
        """The probability for each carry: into the tens, the hundreds, the thousands."""
        return self.slip if isinstance(self.slip, list) else [self.slip] * CARRIES

    @field_validator("width")
    @classmethod
    def _heads_fit(cls, width: int) -> int:
        if not any(width % head == 0 for head in HEAD_WIDTHS):
            raise ValueError(f"attention heads are 32 or 48 wide, and {width} is a multiple of neither; try 64 or 96")
        return width


class LabResources(Settings):
    """How the training runs. Nothing here changes what is learned; another thread count may change the last bits."""

    threads: int | None = Field(None, ge=1)
    """CPU threads. Default: PyTorch's own (``OMP_NUM_THREADS``)."""

    checkpoint_seconds: float = Field(3.0, ge=0.0)
    """Seconds between checkpoints, which is the work lost when the process is killed."""
