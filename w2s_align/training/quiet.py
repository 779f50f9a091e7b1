"""Silence of the libraries while they work for us: a training prints what it has to say itself."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence progress bars and usage pings of the libraries for a while, and give them back as they were."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Said on every import of an on-policy trainer, also where vLLM writes nothing; docs/upstream.md says it once.
    warnings.filterwarnings("ignore", message="TRL currently supports vLLM versions")
    import datasets
    import transformers
    from datasets.utils import logging as datasets_logging
    from transformers.utils import logging as transformers_logging

    before = transformers_logging.is_progress_bar_enabled(), datasets.is_progress_bar_enabled()
    level, datasets_level = transformers_logging.get_verbosity(), datasets_logging.get_verbosity()
    tqdm = os.environ.get("TQDM_DISABLE")
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    datasets_logging.set_verbosity_error()
    os.environ["TQDM_DISABLE"] = "1"
    try:
        yield
    finally:
        if before[0]:
            transformers_logging.enable_progress_bar()
        if before[1]:
            datasets.enable_progress_bars()
        transformers.logging.set_verbosity(level)
        datasets_logging.set_verbosity(datasets_level)
        os.environ.pop("TQDM_DISABLE")
        if tqdm is not None:
            os.environ["TQDM_DISABLE"] = tqdm
