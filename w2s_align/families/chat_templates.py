"""Chat templates of the common model families, with their special tokens and end of turn, for stand-in models.

They render the same text as the published templates, but without tools, images and dates. A real run uses and audits
the model's real template.
"""

from __future__ import annotations

from dataclasses import dataclass

CHATML = """\
{%- if messages[0].role != 'system' -%}{{- DEFAULT -}}{%- endif -%}
{%- for m in messages -%}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' -}}{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""

QWEN3 = """\
{%- set last = namespace(user=-1) -%}
{%- for m in messages -%}{%- if m.role == 'user' -%}{%- set last.user = loop.index0 -%}{%- endif -%}{%- endfor -%}
{%- for m in messages -%}
{{- '<|im_start|>' + m.role + '\\n' -}}
{%- if m.role == 'assistant' -%}
{%- set parts = m.content.split('</think>') -%}
{%- set thought = parts[0].split('<think>')[-1].strip('\\n') if parts | length > 1 else '' -%}
{%- if loop.index0 > last.user -%}{{- '<think>\\n' + thought + '\\n</think>\\n\\n' -}}{%- endif -%}
{{- parts[-1].lstrip('\\n') -}}
{%- else -%}{{- m.content -}}{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- if enable_thinking is defined and not enable_thinking -%}{{- '<think>\\n\\n</think>\\n\\n' -}}{%- endif -%}
{%- endif -%}
"""

LLAMA3 = """\
{{- bos_token -}}
{%- for m in messages -%}
{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}
"""

TULU = """\
{{- BEGIN -}}
{%- for m in messages -%}
{{- '<|' + m.role + '|>\\n' + m.content -}}
{%- if m.role == 'assistant' -%}{{- eos_token -}}{%- endif -%}
{%- if m.role != 'assistant' or not loop.last -%}{{- '\\n' -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- endif -%}
"""

QWEN_SYSTEM = "<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\\n"
SMOL_SYSTEM = "<|im_start|>system\\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\\n"
CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""Special tokens of the families that use ChatML."""


@dataclass(frozen=True)
class Family:
    """A chat template with the tokens that belong to it.

    Attributes:
        name: Name of the family, for messages.
        template: Chat template (Jinja).
        special: Special tokens.
        bos: Token at the beginning of a text, or None.
        eos: The tokenizer's end of text.
        stop: Tokens at which generation ends.
    """

    name: str
    template: str
    special: tuple[str, ...]
    bos: str | None
    eos: str
    stop: tuple[str, ...]


def _chatml(name: str, system: str = "") -> Family:
    template = CHATML.replace("DEFAULT", f"'{system}'")
    return Family(name, template, CHATML_TOKENS, None, "<|im_end|>", ("<|im_end|>", "<|endoftext|>"))


FAMILIES: dict[str, Family] = {
    "Qwen/Qwen2.5": _chatml("Qwen 2.5", QWEN_SYSTEM),
    "Qwen/Qwen3": Family("Qwen 3", QWEN3, CHATML_TOKENS, None, "<|im_end|>", ("<|im_end|>", "<|endoftext|>")),
    "meta-llama/Llama-3": Family(
        "Llama 3",
        LLAMA3,
        ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|begin_of_text|>",
        "<|eot_id|>",
        ("<|end_of_text|>", "<|eot_id|>"),
    ),
    "allenai/Llama-3.1-Tulu": Family(
        "Tülu 3",
        TULU.replace("BEGIN", "''"),
        ("<|begin_of_text|>", "<|end_of_text|>"),
        "<|begin_of_text|>",
        "<|end_of_text|>",
        ("<|end_of_text|>",),
    ),
    "allenai/OLMo-2": Family(
        "OLMo 2",
        TULU.replace("BEGIN", "bos_token"),
        ("<|endoftext|>",),
        "<|endoftext|>",
        "<|endoftext|>",
        ("<|endoftext|>",),
    ),
    "HuggingFaceTB/SmolLM2": _chatml("SmolLM2", SMOL_SYSTEM),
    "allenai/Olmo-3": _chatml("Olmo 3 (in plain ChatML)"),
}
"""Families by the prefix of their models' hub ids."""

PLAIN = _chatml("plain ChatML")
"""For all other models."""


def family_of(model: str) -> Family:
    """Return the family of a hub id; plain ChatML for an unknown one."""
    return next((family for start, family in FAMILIES.items() if model.startswith(start)), PLAIN)
