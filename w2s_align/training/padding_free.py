"""Micro batches without padding: all rows of one in one sequence, a prompt once for both responses, logits for labels.

Reads and writes nothing. TRL pads the rows of a micro batch to its longest, computes a shared prompt twice, and on a
CPU gives the output head every position. Its trainers have no place where that could be changed from outside: their
own ``padding_free`` is off for DPO (trl#3906), and the model's ``forward`` is set in the middle of their constructor.
So :func:`without_padding` puts one function of ours in the place of the public ``trl.trainer.add_fused_lm_head`` while
a trainer is made. All else is public: transformers' attention interface and torch's forward hooks. The trainer sends
the same tensors and gets back the same per-token values at the same places, so that losses, metrics, reference
log-probabilities, accumulation, resuming and adapters are TRL's own.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from w2s_align.training.method import Method
    from w2s_align.training.resources import TrainResources

ATTENTION = "w2s_packed"
"""Name of the attention below in transformers' registry."""

# fmt: off
FAMILIES = frozenset({
    "apertus", "arcee", "cohere2", "ernie4_5", "exaone4", "gemma", "gemma2", "gemma3_text", "glm4", "gpt_neox",
    "granite", "llama", "ministral", "mistral", "olmo", "olmo2", "olmo3", "phi3", "qwen2", "qwen3", "seed_oss",
    "smollm3", "starcoder2",
})
# fmt: on
"""Model types, as in their config.json, whose values and gradients the tests compare with the padded computation.

Not among them: what carries a state from token to token (Mamba, short convolutions), and mixtures of experts, whose
balance TRL counts over padded rows.
"""


@dataclass(frozen=True)
class Packing:
    """How the rows of a pass lie in one sequence.

    Attributes:
        tokens: For each packed token, its index in the flattened rows.
        positions: For each packed token, its position in its row.
        sizes: Length of each segment; all together make up the sequence.
        shared: For each segment, how many tokens at the beginning of the segment before it also come before it.
        targets: For each label, the packed token that predicts it, in the order of the rows.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    sizes: list[int]
    shared: list[int]
    targets: torch.Tensor


def pack(input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor, pairs: bool) -> Packing:
    """Lay out the rows of a pass without padding.

    The last token of a row predicts nothing and is left out.

    Args:
        input_ids: Tokens, padded on the right: ``(rows, length)``.
        attention_mask: 1 for tokens, 0 for padding.
        labels: Tokens, -100 where there is no loss.
        pairs: Whether the second half of the rows are other responses to the prompts of the first half.
    """
    import torch

    ids, marked = input_ids.cpu(), labels.cpu() != -100
    rows, length = ids.shape
    last = [int(size) - 1 for size in attention_mask.sum(1).tolist()]
    first = torch.where(marked.any(1), marked.int().argmax(1), length).tolist()
    where = torch.zeros(rows, length, dtype=torch.long)  # (rows, length): place of each token in the sequence
    tokens, positions, sizes, shared = [], [], [], []  # one entry for each segment
    begin = 0
    for row in (
        [i for pair in zip(range(rows // 2), range(rows // 2, rows), strict=True) for i in pair]
        if pairs
        else range(rows)
    ):
        prompt, before = 0, row - rows // 2
        if pairs and before >= 0:
            prompt = min(first[before], first[row], last[before], last[row])
            if not torch.equal(ids[before, :prompt], ids[row, :prompt]):
                prompt = 0
            where[row, :prompt] = where[before, :prompt]
        place = torch.arange(prompt, last[row])
        where[row, prompt : last[row]] = torch.arange(begin, begin + len(place))
        tokens.append(row * length + place)
        positions.append(place)
        sizes.append(len(place))
        shared.append(prompt)
        begin += len(place)
    targets = where[:, :-1][marked[:, 1:]]  # (labels,): the token before each label
    device = input_ids.device
    return Packing(torch.cat(tokens).to(device), torch.cat(positions).to(device), sizes, shared, targets.to(device))


def attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    packing: Packing | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within each segment and to the prompt it shares, as transformers' ``sdpa`` attends within each row.

    Args:
        module: The layer.
        query: ``(1, heads, tokens, width)``; so are ``key`` and ``value``.
        key: Keys.
        value: Values.
        attention_mask: Mask of a pass that is not packed.
        packing: The segments, or None for a pass that is not packed.
        **kwargs: What transformers passes to its attentions.
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if packing is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    window = kwargs.get("sliding_window")
    outputs = []
    before: tuple[torch.Tensor, ...] = ()
    for segment, prompt in zip(
        zip(*(states.split(packing.sizes, dim=2) for states in (query, key, value)), strict=True),
        packing.shared,
        strict=True,
    ):
        whole = segment
        if prompt:
            # The prompt's queries are computed again, which costs less than a mask without the causal kernel.
            whole = tuple(torch.cat([a[:, :, :prompt], b], dim=2) for a, b in zip(before, segment, strict=True))
        before = segment
        size = whole[0].shape[2]
        mask = None
        if window is not None and size > window:
            # (size, size): how far a key lies before a query
            distance = torch.arange(size, device=query.device)[:, None] - torch.arange(size, device=query.device)
            mask = ((distance >= 0) & (distance < window))[None, None]
        output, _ = sdpa_attention_forward(module, *whole, mask, **kwargs)
        outputs.append(output[:, prompt:])
    return torch.cat(outputs, dim=1), None


def why_padded(method: Method, model: str, resources: TrainResources) -> str | None:
    """Return why passes stay padded, or None when they need no padding.

    Args:
        method: The kind of training.
        model: A model folder or a hub id.
        resources: What the training may use.
    """
    from transformers import AutoConfig

    return why_padded_family(method, AutoConfig.from_pretrained(model, trust_remote_code=False).model_type, resources)


def why_padded_family(method: Method, family: str, resources: TrainResources) -> str | None:
    """Return the same for a model of this type.

    Args:
        method: The kind of training.
        family: Type of the model, as in its config.json.
        resources: What the training may use.
    """
    if not method.padding_free:
        return f"{method.name} is trained on padded rows"
    if not resources.padding_free:
        return "padding_free is off"
    if resources.attn_implementation not in (None, "sdpa"):
        return f"attn_implementation {resources.attn_implementation} cannot share a prompt; sdpa can"
    return None if family in FAMILIES else f"passes without padding are not tested for models of type {family}"


@contextlib.contextmanager
def without_padding(trainer: str, *, pairs: bool, on: bool = True) -> Iterator[None]:
    """Let the trainer that is made inside compute its passes without padding.

    Args:
        trainer: Name of its module in ``trl.trainer``, e.g. ``dpo_trainer``.
        pairs: Whether its passes hold chosen rows, then rejected rows, to the same prompts.
        on: False leaves the trainer as it is; see :func:`why_padded`.
    """
    module: Any = importlib.import_module(f"trl.trainer.{trainer}")
    add_head = module.add_fused_lm_head

    def add_packed_head(model: Any, *args: Any, **kwargs: Any) -> None:
        add_head(model, *args, **kwargs)
        pack_forward(model, pairs=pairs)

    if on:
        module.add_fused_lm_head = add_packed_head
    try:
        yield
    finally:
        module.add_fused_lm_head = add_head


def pack_forward(model: Any, *, pairs: bool) -> None:
    """Let the ``forward`` that ``trl.trainer.add_fused_lm_head`` gave to a model compute its passes without padding.

    Args:
        model: A causal language model, not wrapped, with attention ``sdpa``.
        pairs: As for :func:`without_padding`.
    """
    import torch
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(ATTENTION, attend)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    model.set_attn_implementation(ATTENTION)

    def only_targets(backbone: Any, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        if (packing := kwargs.get("packing")) is not None:
            output.last_hidden_state = output.last_hidden_state[:, packing.targets]
        return output

    model.base_model.register_forward_hook(only_targets, with_kwargs=True)
    fused = model.forward

    @functools.wraps(type(model).forward)
    def forward(self: Any, *args: Any, fused_lm_head: bool = False, **kwargs: Any) -> Any:
        plain = not fused_lm_head or kwargs.get("position_ids") is not None
        if plain or any(kwargs.get(name) is None for name in ("input_ids", "attention_mask", "labels")):
            return fused(*args, fused_lm_head=fused_lm_head, **kwargs)
        rows, labels = kwargs.pop("input_ids"), kwargs.pop("labels")
        packing = pack(rows, kwargs.pop("attention_mask"), labels, pairs)
        places = labels[:, 1:] != -100
        output = fused(
            *args,
            input_ids=rows.flatten()[packing.tokens][None],  # (1, tokens)
            position_ids=packing.positions[None],
            attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=rows.device),  # four axes: made no mask of
            shift_labels=labels[:, 1:][places][None],  # (1, labels)
            packing=packing,
            fused_lm_head=True,
            **kwargs,
        )
        for name in ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1"):
            if (values := getattr(output, name)) is not None:
                # (1, labels) -> (rows, length - 1), where the trainer looks for them
                setattr(output, name, values.new_zeros(places.shape).masked_scatter(places, values))
        output.label_mask = places
        return output

    model.forward = types.MethodType(forward, model)
