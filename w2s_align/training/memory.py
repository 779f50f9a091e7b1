"""How much memory a training takes of each device, from the shape of its model alone: before anything is downloaded.

``training_memory(shape, Setup(tokens=4096, targets=3000, kind="deepspeed", stage=2, processes=8))`` gives bytes by
part. Plain values in, plain values out: for a plan, and for the pre-flight of a training.
``scripts/check_memory.py`` holds it against measured peaks. Imports no torch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from w2s_align.families.shapes import QK_NORMS, Shape

FOUR_BITS = 0.516
"""Bytes per weight in NF4 with double quantization: 4 bits, 0.127 bits of constants (arXiv 2305.14314, section 3)."""
HEAD_TOKENS, HEAD_VOCABULARY = 4096, 32_768
"""Size of the tile in which TRL's trainers compute the output head (trl/kernels/chunked_logprob.py, 1.16)."""
HEAD_TILES = 7.25
"""Further tiles, in float32, that its gradient takes where it is made of torch's operations, as on a CPU: scaled
logits, their log-probabilities, probabilities, gradient, the target's place (a byte), and two intermediate results."""
BUCKET = 500_000_000
"""Gradients that DeepSpeed collects before the processes exchange them (``reduce_bucket_size``)."""


@dataclass(frozen=True)
class Setup:
    """What decides the memory of a training besides its model.

    Attributes:
        tokens: Tokens of the largest micro batch on one device, padding included.
        targets: Those of them that the output head works on.
        packed: Whether micro batches have no padding (padding_free.py).
        sides: Sequences per row: 2 for pairs, 1 for chats.
        accumulation: Passes before an update.
        processes: Processes that train together, one for each device.
        kind: ``single``, ``ddp``, ``deepspeed`` or ``fsdp``.
        stage: ZeRO stage; 0 without DeepSpeed.
        offload: Master weights and moments live in the memory of the CPU.
        dtype: Precision of the arithmetic.
        rank: Rank of the adapter; None when all weights are trained.
        trained: Trained weights; by default all of them, or those of an adapter on every linear layer.
        four_bits: The frozen base is held in 4 bits.
        recompute: Activations are recomputed in the backward pass (gradient checkpointing).
        head: ``tiles`` where log-probabilities are computed tile by tile, ``whole`` where all logits are kept,
            ``none`` for a reward model.
        cpu: The device is a CPU.
        save_dtype: Precision of the saved model, or None to leave its verification out.
        frozen: Bytes of the frozen models beside the trained one: a reference, teachers.
    """

    tokens: float
    targets: float
    packed: bool = False
    sides: int = 2
    accumulation: int = 1
    processes: int = 1
    kind: str = "single"
    stage: int = 0
    offload: bool = False
    dtype: str = "bfloat16"
    rank: int | None = None
    trained: int | None = None
    four_bits: bool = False
    recompute: bool = False
    head: Literal["tiles", "whole", "none"] = "tiles"
    cpu: bool = False
    save_dtype: str | None = None
    frozen: float = 0.0

    @property
    def half(self) -> bool:
        """Whether the arithmetic has 16 bits."""
        return self.dtype != "float32"

    @property
    def size(self) -> float:
        """Bytes of a number in the arithmetic."""
        return 2.0 if self.half else 4.0

    @property
    def autocast(self) -> bool:
        """Whether float32 weights are cast for every product; DeepSpeed and FSDP hold them in 16 bits instead."""
        return self.half and self.kind in ("single", "ddp")


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of one device at the moment of a training when it takes most.

    Attributes:
        weights: The model, in all the copies that there are of it.
        gradients: Gradients of the trained weights, and the buffers that gather them.
        optimizer: Adam's two moments.
        activations: What the forward pass keeps for the backward pass.
        logits: The part of the output head that is worked on, and its gradient.
    """

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float

    @property
    def total(self) -> float:
        """All of it."""
        return sum(asdict(self).values())


def training_memory(shape: Shape, setup: Setup) -> TrainingMemory:
    """Estimate the bytes that a training takes of each of its devices: those of its largest moment.

    Weights, gradients and Adam's moments are float32: 16 bytes for each trained weight; under DeepSpeed and FSDP in 16
    bits there is a working copy beside the float32 master weights. A ZeRO stage shares moments and master weights (1),
    gradients (2) and weights (3) among the processes (arXiv 1910.02054, section 3.1). Gradients are given back after
    every update, so that activations and whole gradients are there together only when micro batches are accumulated.

    Args:
        shape: Shape of the model.
        setup: How it is trained.
    """
    moments = _moments(shape, setup)
    return max(moments, key=lambda memory: memory.total)


def _moments(shape: Shape, s: Setup) -> list[TrainingMemory]:
    """Return the memory when the engine starts, at the end of a forward pass, at the end of a backward pass, and when
    the saved model is opened again."""
    everything = float(shape.parameters)
    trained = everything
    if s.rank is not None:
        trained = float(shape.lora_parameters(s.rank) if s.trained is None else s.trained)
    share = s.processes if s.stage == 3 or s.kind == "fsdp" else 1
    held = _deepspeed(shape, s, trained) if s.kind == "deepspeed" else _torch(s, trained)
    weights = held.weights
    if s.rank is not None:
        weights += everything * (FOUR_BITS if s.four_bits else s.size) / share
    weights += s.frozen / share
    if share > 1:  # the embedding, or a layer, of all processes together
        weights += s.size * max(shape.embedding_parameters, shape.layer_parameters)
    dense = 0.0 if s.rank is not None else 4.0 * shape.embedding_parameters  # gradient of the head, or the embedding
    activations = s.tokens * activation_bytes(shape, s)
    inside = s.tokens * 2 * s.size * shape.intermediate_size  # gradients inside the layer where the backward pass is
    found = [
        TrainingMemory(weights + held.loading, 0.0, 0.0, 0.0, 0.0),
        TrainingMemory(
            weights,
            held.kept + (0.0 if s.head == "none" else dense),
            held.moments,
            activations,
            max(_head_bytes(shape, s), inside),
        ),
        TrainingMemory(weights, held.exchanged + (dense if shape.tied else 0.0), held.moments, 0.0, 0.0),
    ]
    if s.cpu and s.processes == 1 and s.save_dtype is not None:
        # The trained model, the saved one and the start are there, and differences of the largest matrix.
        size = (4.0 if s.rank is None else s.size) + 2 * (4.0 if s.save_dtype == "float32" else 2.0)
        found.append(TrainingMemory(size * everything + 8.0 * shape.embedding_parameters, 0.0, 0.0, 0.0, 0.0))
    return found


@dataclass(frozen=True)
class _Held:
    """Bytes that do not depend on the rows: weights, those copied at the start, Adam's moments, and gradients with
    their buffers in a forward pass (``kept``) and at the end of a backward pass (``exchanged``)."""

    weights: float
    loading: float
    moments: float
    kept: float
    exchanged: float


def _torch(s: Setup, trained: float) -> _Held:
    """One process, DDP, or FSDP2 with its parts of everything."""
    share = s.processes if s.kind == "fsdp" else 1
    gradients = 4.0 * trained / share
    buckets = gradients if s.kind == "ddp" else 0.0
    return _Held(
        weights=4.0 * trained / share + (2.0 * trained if s.autocast else 0.0),  # autocast keeps what it has cast
        loading=0.0,
        moments=8.0 * trained / share,
        kept=buckets + (gradients if s.accumulation > 1 else 0.0),
        exchanged=buckets + gradients,
    )


def _deepspeed(shape: Shape, s: Setup, trained: float) -> _Held:
    """ZeRO as DeepSpeed 0.19 does it: stages 1 and 2 in one file of deepspeed/runtime/zero, stage 3 in another."""
    share = s.processes if s.stage >= 1 else 1
    number = shape.hidden_size**2 if s.offload else BUCKET  # launchers/zero3_offload.json leaves it to transformers
    filled = s.size * min(trained, number)
    bucket = filled if s.cpu else s.size * number  # memory that nothing was written to costs a GPU, not a CPU
    states = 0.0 if s.offload else 4.0 * trained / share
    if s.stage == 3:
        # Parts of gradients, the bucket and the update's gradients are never given back; to be exchanged, a bucket is
        # copied into one piece and then into parts.
        kept = (0.0 if s.offload else s.size * trained / share) + bucket + states
        masters = states if s.half else 0.0
        working = 0.0 if s.offload else s.size * trained / share
        return _Held(working + masters, 0.0, 2 * states, kept, kept + 2 * filled)
    part = s.size * trained / (share if s.stage == 2 else 1)
    waiting = part if s.accumulation > 1 else 0.0  # for the next micro batch; stage 1 exchanges at the last
    return _Held(
        weights=s.size * trained + states,
        loading=s.size * trained if s.cpu else 0.0,  # weights are copied into one piece, outside a GPU that is short
        moments=2 * states,
        kept=waiting + (0.0 if s.cpu else bucket),
        exchanged=max(bucket + filled + (part if s.stage < 2 else waiting), states + part),
    )


def _head_bytes(shape: Shape, s: Setup) -> float:
    """Return what the output head takes besides the gradient of its weights."""
    if s.head == "none":
        return 0.0
    if s.head == "whole":  # logits and their log-softmax, and a gradient of each
        return s.tokens * shape.vocab_size * (s.size + 8.0 + s.size)
    tile = min(s.targets, HEAD_TOKENS) * min(shape.vocab_size, HEAD_VOCABULARY)
    hidden = s.targets * shape.hidden_size * 4.0
    if s.cpu:
        return tile * (s.size + 4.0 * HEAD_TILES) + hidden
    cast = 2.0 * min(shape.vocab_size, HEAD_VOCABULARY) * shape.hidden_size if s.autocast else 0.0
    return tile * s.size + cast + hidden


def activation_bytes(shape: Shape, setup: Setup) -> float:
    """Return what a token leaves behind for the backward pass: what autograd saves of every operation.

    Every norm saves its input in float32, its normalized input and its output; attention saves the rotated queries and
    keys, values and output; the feed-forward layer its gate before and after the activation, what it is multiplied
    with, and the product. With frozen weights there is no gradient of a norm's weight, so nothing normalized is saved.
    With recomputation it is one layer, and the input of every other. ``tests/training`` counts the same with
    torch.autograd.graph.saved_tensors_hooks.
    """
    s, size, width = setup, setup.size, float(shape.hidden_size)
    queries, keys = float(shape.heads * shape.head_dim), float(shape.kv_heads * shape.head_dim)
    inner, adapter = float(shape.intermediate_size), s.rank is not None
    residual = 4.0 if not s.half or (s.autocast and not adapter) else 2.0
    norms = 2 * width * (4.0 + (0.0 if adapter else 4.0 if s.autocast else size))
    inputs = 2 * width * size  # of attention's and of the feed-forward layer's products
    if s.autocast:  # which every product casts for itself
        inputs = 5 * width * size + (size * (queries + inner) if adapter else 0.0)
    attention = size * (2 * queries + 2 * keys)
    feed_forward = size * (3 if s.autocast and adapter else 4) * inner
    layer = norms + inputs + attention + feed_forward
    if shape.model_type in QK_NORMS:
        layer += (queries + keys) * (4.0 + (0.0 if adapter else 4.0 if not s.half else 2.0))
    if s.packed:  # segments are put together again; a shared prompt goes before the second response once more
        second = 1 - s.targets / (2 * s.tokens) if s.sides == 2 else 0.0
        layer += size * (queries + second * (queries + 2 * keys))
    if adapter:
        layer += size * 7 * (s.rank or 0)
    ends = 3 * 4.0 * width  # embedding and last norm
    if s.recompute:
        return layer + residual * width * shape.layers + ends
    return layer * shape.layers + ends
