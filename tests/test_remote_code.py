"""`trust_remote_code` is said in every call that loads from transformers: left out, it is asked on standard input."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ASKING = ("AutoConfig", "AutoTokenizer", "AutoModel", "auto_class")
"""Names whose ``from_pretrained`` asks; those of PEFT and GenerationConfig run no code of a repository."""
FILES = sorted(path for folder in ("w2s_align", "scripts") for path in (ROOT / folder).rglob("*.py"))


def silent(source: str) -> list[str]:
    """Return the calls that leave it out."""
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "from_pretrained"
        and ast.unparse(node.func.value).startswith(ASKING)
        and "trust_remote_code" not in [keyword.arg for keyword in node.keywords]
    ]


def test_every_call_says_it() -> None:
    assert {str(path.relative_to(ROOT)): calls for path in FILES if (calls := silent(path.read_text()))} == {}


@pytest.mark.parametrize("call", ["AutoConfig.from_pretrained(x)", "AutoModelForCausalLM.from_pretrained(x).eval()"])
def test_a_call_that_leaves_it_out_is_found(call: str) -> None:
    assert len(silent(call)) == 1
    assert silent(call.replace("(x", "(x, trust_remote_code=False")) == []
