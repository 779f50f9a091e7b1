"""Licences of the models that wrote responses: what a data set made of their answers may be used for.

Some open models forbid commercial use of what they write: the best pair of models of the delta learning paper has one
of them on its better side (delta_learning.md 12). What the user states goes first; then the model card, from the hub
or its local cache; then what public model cards said when this was written.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping

KNOWN = {
    "Qwen/Qwen2.5-0.5B-Instruct": "apache-2.0",
    "Qwen/Qwen2.5-3B-Instruct": "qwen-research",
    "Qwen/Qwen2.5-7B-Instruct": "apache-2.0",
    "Qwen/Qwen2.5-72B-Instruct": "qwen",
    "meta-llama/Llama-3.1-8B-Instruct": "llama3.1",
    "meta-llama/Llama-3.1-70B-Instruct": "llama3.1",
}
"""From delta_learning.md 12. A licence that is not there is not guessed."""

NON_COMMERCIAL = re.compile(r"(^|[-_ ])nc([-_ .0-9]|$)|non-?commercial|research", re.IGNORECASE)


def generator_licences(models: Iterable[str], stated: Mapping[str, str]) -> dict[str, str]:
    """Return the licence of every model, ``not stated`` where nobody says it.

    Args:
        models: Names of the models: hub ids, or names of steps.
        stated: What the user says, by the model's name.
    """
    return {model: stated.get(model) or _card(model) or KNOWN.get(model) or "not stated" for model in sorted(models)}


def licence_warnings(licences: Mapping[str, str]) -> list[str]:
    """Say which licences forbid commercial use, and which models of other people have none.

    A model without a ``/`` in its name is no hub id but one of the recipe's own.
    """
    bound = [f"{model} ({licence})" for model, licence in licences.items() if NON_COMMERCIAL.search(licence)]
    silent = [model for model, licence in licences.items() if licence == "not stated" and "/" in model]
    found = []
    if bound:
        found.append(f"Not for commercial use, by the licence of a model that wrote responses: {', '.join(bound)}.")
    if licences.get("unknown") == "not stated":
        found.append("The data does not say which models wrote all of the responses: their licences are not known.")
    if silent:
        found.append(f"The licence of {', '.join(silent)} is not stated: look it up before you publish these pairs.")
    return found


def _card(model: str) -> str | None:
    """Return the licence on the model card, or None when it cannot be had."""
    if model.count("/") != 1:
        return None
    from huggingface_hub import HfApi, ModelCard, constants, try_to_load_from_cache

    # No network, no such model, no access, a damaged card: each comes as another class, and none is a reason to stop.
    with contextlib.suppress(Exception):
        cached = try_to_load_from_cache(model, "README.md")
        if isinstance(cached, str):
            return _named(ModelCard.load(cached).data)
        if not constants.HF_HUB_OFFLINE:
            return _named(HfApi().model_info(model, timeout=5).card_data)
    return None


def _named(card: object) -> str | None:
    """Return the licence of a card's header; ``other`` stands for a name beside it."""
    licence = getattr(card, "license", None)
    name = getattr(card, "license_name", None)
    return str(name) if licence == "other" and name else str(licence) if licence else None
