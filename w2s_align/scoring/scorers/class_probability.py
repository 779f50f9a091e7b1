"""The probability of one class of a response, from a text classifier of the hub: toxic, positive, English, ...

Reads the response alone, as it stands, without its prompt and without a chat template; runs transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field

from w2s_align.errors import UserError, did_you_mean, missing_package
from w2s_align.scoring.scorer import Assessment, BatchScorer, Outcome, Scorer, unscored


class ClassProbabilityScorer(Scorer):
    """The probability that a text classifier gives one class of a response, e.g. toxicity; scores are named
    ``class_probability:<model>``."""

    name: Literal["class_probability"] = "class_probability"
    model: str
    """Hub id or folder of a classifier of texts."""
    of_class: str
    """The class, as the model's configuration calls it, e.g. toxic."""
    revision: str | None = None
    """Revision on the hub."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format; auto is float32 on a CPU, else the model's own."""
    max_length: int | None = Field(default=None, ge=1)
    """Longest response in tokens; a longer one is unscored. Null for what the model was made for."""
    batch_size: int = Field(default=32, ge=1)
    """Responses per forward pass; changes no score."""

    models: ClassVar[Mapping[str, str]] = {"model": "revision"}

    @property
    def label(self) -> str:
        """What ``Score.scorer`` says."""
        return f"class_probability:{self.model}"

    @property
    def runs_transformers(self) -> bool:
        """Whether transformers runs the model: always."""
        return True

    @contextmanager
    def open(self) -> Iterator[BatchScorer]:
        """Open the model; a response longer than ``max_length`` is unscored, never cut.

        Raises:
            UserError: The model is not a classifier, has no such class, or transformers is not installed.
        """
        if find_spec("transformers") is None:
            raise missing_package("transformers", "train", "the class_probability scorer")
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.model, revision=self.revision, trust_remote_code=False)
        place, independent, limit = self._class()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = self.dtype if self.dtype != "auto" else ("auto" if device == "cuda" else "float32")
        model = AutoModelForSequenceClassification.from_pretrained(
            self.model, revision=self.revision, dtype=dtype, trust_remote_code=False
        )
        model = model.to(device).eval()
        longest: int = self.max_length or limit

        def score_batch(prompts: pa.Table, responses: pa.Table) -> list[Assessment]:
            ids = tokenizer(responses["text"].to_pylist())["input_ids"]
            found = [unscored(Outcome.TOO_LONG)] * len(ids)
            rows = sorted((row for row in range(len(ids)) if len(ids[row]) <= longest), key=lambda row: len(ids[row]))
            for start in range(0, len(rows), self.batch_size):
                batch = rows[start : start + self.batch_size]
                inputs = tokenizer.pad({"input_ids": [ids[row] for row in batch]}, return_tensors="pt").to(device)
                with torch.inference_mode():
                    logits = model(**inputs).logits.float()
                p = logits.sigmoid() if independent else logits.softmax(dim=1)
                for row, value in zip(batch, p[:, place].tolist(), strict=True):
                    found[row] = Assessment(value)
            return found

        yield score_batch

    def _class(self) -> tuple[int, bool, int]:
        """Return the place of the class, whether classes are independent of each other, and the longest text."""
        from transformers import AutoConfig

        config: Any = AutoConfig.from_pretrained(self.model, revision=self.revision, trust_remote_code=False)
        architecture = (config.architectures or ["none"])[0]
        if not architecture.endswith("ForSequenceClassification"):
            raise UserError(
                f"{self.model} is not a classifier of texts.",
                why=f"It is a {architecture}.",
                fix="Use a model for sequence classification.",
            )
        classes = {str(name): int(place) for place, name in config.id2label.items()}
        if self.of_class not in classes:
            raise UserError(
                f"{self.model} has no class {self.of_class}.",
                why=f"Its classes are {', '.join(classes)}.",
                fix=did_you_mean(self.of_class, list(classes)),
            )
        # Models of the BERT family reserve two positions for padding (RoBERTa) or none.
        limit = int(getattr(config, "max_position_embeddings", 512)) - 2
        independent = config.problem_type == "multi_label_classification" or len(classes) == 1
        return classes[self.of_class], independent, limit
