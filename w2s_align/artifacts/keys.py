"""Keys: the digest of everything that can change an artifact's content, and of nothing else.

Same key, same artifact: it is never made twice. Paths, devices, threads and inference batch sizes live under
``resources`` and are not part of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from w2s_align.artifacts.identity import model_name
from w2s_align.files import installed_version
from w2s_align.recipe import Node

KEY_LENGTH = 20
"""Hexadecimal digits of a key: 80 bits, so that a million artifacts do not collide."""


def key_material(node: Node, input_keys: Mapping[str, str]) -> dict[str, Any]:
    """Return what the key of a node is made of.

    Args:
        node: A step with one seed.
        input_keys: Keys of the artifacts it reads, by the place that reads them.
    """
    config = node.config
    options = config.content()
    named = {}
    for reference in config.references():
        if reference.step is None:
            _set(options, reference.path, model_name(reference.value))  # its content is in the identity
            continue
        _set(options, reference.path, "$")  # what counts is what the step wrote, not how it is called
        if reference.reads.named:
            named[".".join(reference.path)] = reference.step
    return {
        "kind": config.kind,
        "version": config.version,
        "options": options,
        "inputs": dict(sorted(input_keys.items())),
        "named": named,
        "identity": config.identity(),
        "libraries": {name: installed_version(name) for name in config.libraries},
    }


def _set(options: Any, path: tuple[str, ...], value: str) -> None:
    for part in path[:-1]:
        options = options[int(part)] if isinstance(options, list) else options[part]
    if isinstance(options, list):
        options[int(path[-1])] = value
    else:
        options[path[-1]] = value


def digest(material: Any) -> str:
    """Return the key of JSON-serializable material; the order of mappings does not matter."""
    text = json.dumps(material, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]
