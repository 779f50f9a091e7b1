"""Licenses of the models that wrote responses: what a dataset made of their responses may be used for.

Some open models forbid commercial use of what they write: the best pair of models of the delta learning paper
(https://arxiv.org/abs/2507.06187) has one of them, Qwen2.5-3B-Instruct, on its better side. What the user states goes
first; then the model card, from the hub or its local cache; then what public model cards said when this was written.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping

NOT_STATED = "not stated"
"""License of a model of which nobody says it."""
KNOWN = {
    "Qwen/Qwen2.5-0.5B-Instruct": "apache-2.0",
    "Qwen/Qwen2.5-3B-Instruct": "qwen-research",
    "Qwen/Qwen2.5-7B-Instruct": "apache-2.0",
    "Qwen/Qwen2.5-72B-Instruct": "qwen",
    "meta-llama/Llama-3.1-8B-Instruct": "llama3.1",
    "meta-llama/Llama-3.1-70B-Instruct": "llama3.1",
}
"""What the models' cards on the hub said in 2026, for machines without a network. A license that is not there is not
guessed."""

NON_COMMERCIAL = re.compile(r"(^|[-_ ])nc([-_ .0-9]|$)|non-?commercial|research", re.IGNORECASE)
"""License names that forbid commercial use: ``cc-by-nc-4.0``, ``qwen-research``, ``non-commercial``."""


def find_licenses(models: Iterable[str], stated: Mapping[str, str]) -> dict[str, str]:
    """Return the license of every model, ``not stated`` where nobody says it.

    Args:
        models: Names of the models: hub ids, or names of steps.
        stated: What the user says, by the model's name.
    """
    return {model: stated.get(model) or stated_license(model) or NOT_STATED for model in sorted(models)}


def stated_license(model: str) -> str | None:
    """Return the license of a hub model, by its card or by what is known here; None where nobody says it."""
    return _card(model) or KNOWN.get(model)


def license_warnings(licenses: Mapping[str, str]) -> list[str]:
    """Say which licenses forbid commercial use, and which models of other people have none.

    A model without a ``/`` in its name is not a hub id but one of the recipe's own.
    """
    bound = [f"{model} ({license})" for model, license in licenses.items() if NON_COMMERCIAL.search(license)]
    silent = [model for model, license in licenses.items() if license == NOT_STATED and "/" in model]
    found = []
    if bound:
        found.append(f"Not for commercial use, by the license of a model that wrote responses: {', '.join(bound)}.")
    if licenses.get("unknown") == NOT_STATED:
        found.append("The data does not say which models wrote all of the responses: their licenses are not known.")
    if silent:
        found.append(f"The license of {', '.join(silent)} is not stated: look it up before you publish these pairs.")
    return found


def _card(model: str) -> str | None:
    """Return the license on the model card, or None when it could not be read."""
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
    """Return the license of a card's header; ``other`` stands for a name beside it."""
    license = getattr(card, "license", None)
    name = getattr(card, "license_name", None)
    return str(name) if license == "other" and name else str(license) if license else None
