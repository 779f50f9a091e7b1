"""The lab's tokenizer: one token per byte, so one per ASCII character, five special tokens and a chat template.

Any text survives a round trip, whatever its script. The id of a byte is its value + 5, so training data is made with
numpy and never passes through the tokenizer. There is no beginning-of-text token, so none can be doubled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
PAD, END, SYSTEM, USER, ASSISTANT = range(len(SPECIAL_TOKENS))
FIRST_BYTE = len(SPECIAL_TOKENS)
"""Id of byte 0."""
VOCABULARY = FIRST_BYTE + 256
"""Number of token ids."""
MAX_LENGTH = 128
"""Context of a lab model, in tokens; a problem and its solution need 58."""

# Every turn is <|role|>content<|end|>, and the generation prompt is the opening of the assistant's turn: a prompt is a
# token prefix of the same prompt with a response, for every chat.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{%- if message['role'] not in ['system', 'user', 'assistant'] -%}
{{- raise_exception('a lab model knows the roles system, user and assistant, not ' + message['role']) -}}
{%- endif -%}
{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|assistant|>' -}}
{%- endif -%}
"""


def byte_symbols() -> list[str]:
    """Return the visible character that stands for each byte in a byte-level vocabulary (GPT-2's convention)."""
    visible = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    hidden = [byte for byte in range(256) if byte not in visible]
    return [chr(byte) if byte in visible else chr(256 + hidden.index(byte)) for byte in range(256)]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer of every lab model; it saves to and loads from an ordinary ``tokenizer.json``."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate([*SPECIAL_TOKENS, *byte_symbols()])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=SPECIAL_TOKENS[END],
        pad_token=SPECIAL_TOKENS[PAD],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=MAX_LENGTH,
    )
