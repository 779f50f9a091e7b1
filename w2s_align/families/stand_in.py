"""Stand-ins: tiny models with the architecture and chat template of a named model, and a tokenizer of single bytes.

The chat template is the model's own if its files are on this machine, else its family's (chat_templates.py). Writes an
ordinary model folder. The weights are random but for a few seconds of training on one kind of short response, so that
responses have an end, a number that answer checks find, and a rating that judges' parsers find. They mean nothing.
"""

from __future__ import annotations

import hashlib
import random
import string
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s_align.families.chat_templates import Family, family_of
from w2s_align.families.own_template import own_family
from w2s_align.families.shapes import Shape, find_shape

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

WIDTH, HEAD, LAYERS = 64, 32, 2
"""Hidden size, width of a head, number of layers: 0.1 million weights, and heads that vLLM's kernels support."""
CONTEXT = 32_768
"""Largest context of a stand-in, and that of one whose original has an unknown one."""
STEPS, ROWS = 120, 8
"""Training steps and rows of a batch: a few seconds, enough for responses that end."""
LEARNING_RATE = 3e-3
"""Peak rate of AdamW: high, since the model is tiny and the training short."""
CHARACTERS = string.ascii_letters + string.digits + "#:,.?()[]"
"""What training questions are made of."""
LENGTHS = (20, 40, 80, 160, 600, 900)
"""Characters of the training questions; prompts of judges are long."""
GENERIC = "HuggingFaceTB/SmolLM2-360M-Instruct"
"""The model whose architecture (a plain Llama) stands in for a model of unknown shape."""


@dataclass(frozen=True)
class StandIn:
    """What was made.

    Attributes:
        model: Its folder.
        like: The model that it stands in for.
        architecture: Model type by its name in transformers.
        family: Whose chat template it has.
        parameters: Number of its weights.
        known: Whether the shape of ``like`` is known; else the stand-in is a plain Llama.
        loss: Mean loss of the last steps, in nats per token; None for a reward model, which is not trained.
    """

    model: Path
    like: str
    architecture: str
    family: str
    parameters: int
    known: bool
    loss: float | None


def make_stand_in(folder: str | Path, like: str, *, reward: bool = False) -> StandIn:
    """Write a tiny model that can be served and tuned like the one it stands in for.

    Args:
        folder: Folder of the model.
        like: Hub id or folder of the original; its weights are never read. It also decides the random weights, and how
            a response begins, so that the stand-ins of two models differ.
        reward: Make a reward model: it gives a chat one random number.

    Returns:
        What was made.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, GenerationConfig

    folder = Path(folder)
    shape, family = find_shape(like), own_family(like) or family_of(like)
    seed = int.from_bytes(hashlib.sha256(like.encode()).digest()[:4])
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(family)
    config = _config(shape or find_shape(GENERIC), tokenizer)
    loss: float | None = None
    if reward:
        config.num_labels = 1
        model = AutoModelForSequenceClassification.from_config(config)
    else:
        model = AutoModelForCausalLM.from_config(config)
        loss = _train(model, tokenizer, seed)
    stop = sorted(tokenizer.convert_tokens_to_ids(token) for token in family.stop)
    model.generation_config = GenerationConfig(eos_token_id=stop, pad_token_id=tokenizer.pad_token_id)
    stored = shape.dtype if shape else "bfloat16"
    model.to(getattr(torch, stored)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    architecture = str(model.config.model_type)
    return StandIn(folder, like, architecture, family.name, model.num_parameters(), shape is not None, loss)


def build_tokenizer(family: Family) -> PreTrainedTokenizerFast:
    """Return a tokenizer of single bytes with a family's special tokens; ids 0 to 255 are the bytes."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from w2s_align.lab.tokenizer import byte_symbols

    tokenizer = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(byte_symbols())}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [*family.special, "<|pad|>"]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=family.bos,
        eos_token=family.eos,
        pad_token="<|pad|>",
        chat_template=family.template,
        clean_up_tokenization_spaces=False,
    )


def _config(shape: Shape | None, tokenizer: PreTrainedTokenizerFast) -> Any:
    from transformers import AutoConfig

    assert shape is not None
    heads = WIDTH // HEAD
    options: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": heads,
        "num_key_value_heads": heads if shape.kv_heads == shape.heads else 1,
        "max_position_embeddings": min(shape.context or CONTEXT, CONTEXT),
        "tie_word_embeddings": shape.tied,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    if shape.head_dim * shape.heads != shape.hidden_size:
        options["head_dim"] = HEAD
    if shape.model_type == "olmo3":
        options["layer_types"] = ["sliding_attention", "full_attention"]
    return AutoConfig.for_model(shape.model_type, **options)


def _train(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, seed: int) -> float:
    """Train on responses like ``kladpo 3. Rating: 3 #### 3``; returns the mean loss of the last ten steps."""
    import torch

    rng = random.Random(seed)
    opening = "".join(rng.choice("abcdefghijklmnop") for _ in range(6))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    losses: list[float] = []
    model.train()
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1, (step + 1) / 10) * (1 - step / STEPS)
        length = rng.choice(LENGTHS)
        chats = [_chat(rng, opening, length) for _ in range(ROWS)]
        texts = [tokenizer.apply_chat_template(chat, tokenize=False) for chat in chats]
        prompts = [
            tokenizer.apply_chat_template(chat[:-1], tokenize=False, add_generation_prompt=True) for chat in chats
        ]
        batch = tokenizer(texts, add_special_tokens=False, padding=True, padding_side="right", return_tensors="pt")
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        for row, prompt in enumerate(prompts):
            labels[row, : len(tokenizer(prompt, add_special_tokens=False)["input_ids"])] = -100
        loss = model(**batch, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return sum(losses[-10:]) / 10


def _chat(rng: random.Random, opening: str, length: int) -> list[dict[str, str]]:
    digit = rng.randrange(1, 6)
    words = ("".join(rng.choice(CHARACTERS) for _ in range(rng.randrange(1, 8))) for _ in range(length // 4))
    question = "".join(word + rng.choice("    \n") for word in words)
    answer = f"{opening} {digit}. Rating: {digit} #### {digit}"
    return [{"role": "user", "content": question[:length]}, {"role": "assistant", "content": answer}]
