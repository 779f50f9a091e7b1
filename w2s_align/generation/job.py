"""What one generation is: a model, prompts, and everything else that decides what is written.

Plain values; reads and writes nothing.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from w2s_align.generation.models import ModelFiles
from w2s_align.generation.prompts import PromptRows
from w2s_align.generation.settings import Engine, Sampling

FORMAT = 2
"""Format of the journal; raise it when a new version cannot resume the journals of an older one."""


def request_seed(seed: int, prompt_id: str, sample: int) -> int:
    """Return the seed of one response.

    It has 53 bits (of a SHA-256 digest), so that JSON readers that know only doubles keep it exactly.

    Args:
        seed: Seed of the whole job.
        prompt_id: Id of the prompt.
        sample: Number of the response to that prompt, from 0.
    """
    digest = hashlib.sha256(f"{seed}/{prompt_id}/{sample}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 11


@dataclass(frozen=True)
class Job:
    """One model, a set of distinct prompts, one way of sampling. Row ``i * n + s`` is sample s of prompt i."""

    model: ModelFiles
    model_name: str
    prompts: PromptRows
    sampling: Sampling
    engine: Engine
    seed: int

    @property
    def rows(self) -> int:
        """Number of responses, those to prompts that get dropped included."""
        return self.prompts.count * self.sampling.n

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that must be equal for the responses of an earlier attempt to belong to this job."""
        return {
            "format": FORMAT,
            "model": self.model_name,
            "config": hashlib.sha256(json.dumps(dict(self.model.config), sort_keys=True).encode()).hexdigest()[:16],
            "sampling": self.sampling.model_dump(mode="json"),
            "engine": self.engine.model_dump(mode="json"),
            "seed": self.seed,
            "prompts": self.prompts.digest,
            "duplicated": len(self.prompts.duplicated),
        }

    def row_seed(self, prompt_id: str, sample: int) -> int | None:
        """Return the seed of one response; None for greedy decoding."""
        return None if self.sampling.temperature == 0 else request_seed(self.seed, prompt_id, sample)
