"""A tiny engine for tests that kill processes: deterministic, 20 ms an answer, started in a moment.

Every Python process that finds this file on its path uses it, as Python imports ``sitecustomize`` by itself; the
generation around it is the real one. Tokenizers are loaded without torch, whose import takes seconds.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))  # the package that is tested, whichever one is installed

from w2s_align.generation import EngineResources, Sampling
from w2s_align.generation import chat as chat_module
from w2s_align.generation.engines import Completion, Request, engine_cache, vllm


class FastEngine:
    name = "transformers"
    dtype = "float32"
    device = "cpu"
    devices = 0
    context_length = 128
    in_flight = 32

    def run(
        self, requests: Iterable[Request | None], sampling: Sampling, stop_token_ids: Sequence[int]
    ) -> Generator[list[Completion], None, None]:
        for request in requests:
            if request is None:
                continue
            time.sleep(0.02)
            text = f"{sum(request.token_ids)} {request.seed}"
            yield [Completion(request, text, "stop", len(text))]

    def close(self) -> None:
        pass


def open_fast_engine(model: Any, engine: Any, resources: EngineResources) -> FastEngine:
    return FastEngine()


def load_tokenizer(model: Any, trust_remote_code: bool) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(str(model.folder))


if "sitecustomize" in sys.modules and str(Path(__file__).parent) in os.environ.get("PYTHONPATH", "").split(os.pathsep):
    engine_cache.open_engine = open_fast_engine
    vllm.VllmEngine = open_fast_engine  # in the replicas of the ray engine
    chat_module._load_tokenizer = load_tokenizer
