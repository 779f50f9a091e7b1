"""A model's own chat template, if its files are on this machine: in a folder, or in the local cache of the hub.

Reads tokenizer_config.json, chat_template.jinja and generation_config.json; uses no network.
"""

from __future__ import annotations

import json
from typing import Any

from w2s_align.families.chat_templates import Family
from w2s_align.families.shapes import model_file


def own_family(model: str) -> Family | None:
    """Return a model's own chat template with its tokens; None when its files are not on this machine.

    Args:
        model: A hub id, or a folder.
    """
    config = _json(model, "tokenizer_config.json")
    template = _text(model, "chat_template.jinja") or config.get("chat_template")
    eos = _token(config.get("eos_token"))
    if not isinstance(template, str) or eos is None:  # an older format has several named templates
        return None
    added = {int(number): token for number, token in config.get("added_tokens_decoder", {}).items()}
    special = [token["content"] for token in added.values() if token.get("special")]
    bos = _token(config.get("bos_token"))
    ends = _json(model, "generation_config.json").get("eos_token_id") or []
    stop = [added[number]["content"] for number in ([ends] if isinstance(ends, int) else ends) if number in added]
    named = dict.fromkeys([*special, *([bos] if bos else []), eos])
    return Family(f"{model}'s own", template, tuple(named), bos, eos, tuple(dict.fromkeys([*stop, eos])))


def _json(model: str, name: str) -> dict[str, Any]:
    text = _text(model, name)
    return dict(json.loads(text)) if text else {}


def _text(model: str, name: str) -> str | None:
    path = model_file(model, name)
    return path.read_text(encoding="utf-8") if path else None


def _token(value: Any) -> str | None:
    found = value.get("content") if isinstance(value, dict) else value
    return found if isinstance(found, str) else None
