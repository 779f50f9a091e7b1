"""Published examples of few-shot prompts, read from the task files of the installed lm-eval.

GSM8K's eight (Wei et al. 2022, arXiv 2201.11903), MATH's four (Lewkowycz et al. 2022, arXiv 2206.14858), BBH's three
to each subtask (Suzgun et al. 2022, arXiv 2210.09261) and TruthfulQA's six (Lin et al. 2022, arXiv 2109.07958) are no
part of the datasets. Nothing of lm-eval is imported or run here: its files are read.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from w2s_align.errors import UserError, missing_package


@dataclass(frozen=True)
class PublishedExamples:
    """The examples of one task file of lm-eval.

    Attributes:
        rows: The examples, with the columns that the file gives them.
        description: What stands before them; empty where nothing does.
    """

    rows: list[dict[str, Any]]
    description: str


def _as_text(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Any:
    return loader.construct_scalar(node)


class _Loader(yaml.SafeLoader):
    """Reads lm-eval's YAML, where ``!function utils.name`` names a Python function; here it stays a text."""


_Loader.add_constructor("!function", _as_text)


@cache
def published_examples(file: str) -> PublishedExamples:
    """Return the examples of a task file of lm-eval.

    Args:
        file: Path of the file below lm-eval's folder of tasks, e.g. ``gsm8k/gsm8k-cot.yaml``.

    Raises:
        UserError: lm-eval is not installed, or this version of it has no such file, or no examples in it.
    """
    spec = find_spec("lm_eval")
    if spec is None or spec.origin is None:
        raise missing_package("lm-eval", "lm_eval", "A task with published examples")
    path = Path(spec.origin).parent / "tasks" / file
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
        samples = (data.get("fewshot_config") or {}).get("samples")
        if isinstance(samples, str):
            samples = _returned_by(path.parent, samples)
        rows = samples if samples is not None else _questions(str(data["doc_to_text"]))
    except (OSError, yaml.YAMLError, KeyError, AttributeError, ValueError, SyntaxError, StopIteration) as error:
        raise _absent(file, f"{type(error).__name__}: {error}") from None
    if not rows:
        raise _absent(file, "it has no examples")
    return PublishedExamples([dict(row) for row in rows], str(data.get("description") or "").strip())


def published_digest(files: list[str]) -> str:
    """Return a digest of the examples of some files, which changes when another version of lm-eval changes one.

    Args:
        files: Paths as :func:`published_examples` takes them.
    """
    found = [published_examples(file) for file in files]
    text = json.dumps([[one.description, one.rows] for one in found], ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _absent(file: str, why: str) -> UserError:
    return UserError(
        f"The published examples of {file} cannot be read from the installed lm-eval.",
        why=f"{why}.",
        fix="Install lm-eval 0.4.13, or give examples of your own (examples: [...]), or set shots: 0.",
    )


def _returned_by(folder: Path, function: str) -> list[dict[str, Any]]:
    """Return the literal that a function of a file beside the task returns, without running it."""
    module, name = function.rsplit(".", 1)
    tree = ast.parse((folder / f"{module}.py").read_text(encoding="utf-8"))
    body = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name).body
    value = next(node.value for node in body if isinstance(node, ast.Return) and node.value is not None)
    found: list[dict[str, Any]] = ast.literal_eval(value)
    return found


def _questions(template: str) -> list[dict[str, Any]]:
    """Return the questions and answers that a template has before the problem, as TruthfulQA's."""
    pairs = re.findall(r"Q: ([^{}]+?)\nA: ([^{}]+?)(?=\n\n|'\s*%\})", template)
    return [{"question": question.strip(), "answer": answer.strip()} for question, answer in pairs]
