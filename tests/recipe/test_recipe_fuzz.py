"""Broken recipes and values: each is answered at once, in words, with a line, and never with a traceback."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from w2s_align.errors import UserError
from w2s_align.recipe import apply_overrides, load, parse_document
from w2s_align.steps import CATALOGUE

GOOD = """name: good
seed: 0
steps:
  prompts: {kind: prompts, source: lab/addition, limit: 4}
  weak:    {kind: generate, model: org/weak, prompts: $prompts, sampling: {temperature: 1, max_tokens: 8}}
  weaker:  {kind: generate, model: org/weaker, prompts: $prompts, sampling: {temperature: 1, max_tokens: 8}}
  pairs:   {kind: pair, rule: model_order, chosen: $weak, rejected: $weaker}
"""

VALUES = {
    "a date that does not exist": "2024-13-45",
    "a date": "2024-01-05",
    "a time stamp": "2001-12-14t21:59:43.10-05:00",
    "base 60": "12:30",
    "base 60 with seconds": "1:12:30",
    "octal": "010",
    "octal with a sign": "-0017",
    "infinity": ".inf",
    "minus infinity": "-.INF",
    "not a number": ".nan",
    "5,000 digits": "9" * 5000,
    "400 digits": "1" * 400,
    "true": "true",
    "yes": "yes",
    "off": "off",
    "a set": "!!set {a, b}",
    "binary": "!!binary aGVsbG8=",
    "binary that is none": "!!binary '*'",
    "python": "!!python/object:os.system {}",
    "python name": "!!python/name:os.system ''",
    "an unknown tag": "!mine x",
    "pairs": "!!pairs [a: 1]",
    "an ordered map": "!!omap [a: 1]",
    "a mapping as key": "{{a: 1}: 2}",
    "a list as key": "{[1]: 2}",
    "NUL": r'"a\0b"',
    "an escape sequence": r'"a\e[2J"',
    "half a surrogate pair": r'"\ud800"',
    "a bell": r'"\a"',
    "a list": "[1, [2, [3]]]",
    "an empty list": "[]",
    "a mapping": "{a: 1}",
    "an empty text": "''",
    "a lone dollar": "$",
    "a step with a seed that it lacks": "$prompts@7",
    "a negative number": "-5",
    "a fraction": "1.5",
    "a huge number": "1e400",
    "null": "null",
    "a very long text": "x" * 100_000,
}
PLACES = {
    "limit": "{kind: prompts, source: lab/addition, limit: VALUE}",
    "source": "{kind: prompts, source: VALUE}",
    "seed": "{kind: prompts, source: lab/addition, limit: 4, seed: VALUE}",
    "temperature": "{kind: generate, model: org/m, prompts: $prompts, sampling: {temperature: VALUE, max_tokens: 8}}",
    "max_tokens": "{kind: generate, model: org/m, prompts: $prompts, sampling: {temperature: 0, max_tokens: VALUE}}",
    "retries": "{kind: generate, model: org/m, prompts: $prompts, sampling: {max_tokens: 8}, resources: {retries: VALUE}}",
    "beta": "{kind: dpo, model: org/m, pairs: $pairs, learning_rate: 1.0e-5, beta: VALUE}",
    "learning_rate": "{kind: dpo, model: org/m, pairs: $pairs, learning_rate: VALUE}",
    "seeds": "{kind: dpo, model: org/m, pairs: $pairs, learning_rate: 1.0e-5, seeds: [1, VALUE]}",
    "kind": "{kind: VALUE}",
}
ALLOWED = {
    *(
        ("source", name)
        for name in (
            "a lone dollar",
            "a very long text",
            "yes",
            "off",
            "a step with a seed that it lacks",
            "a huge number",
        )
    ),  # refused when it is opened
    *((place, "null") for place in ("limit", "seed", "seeds")),
    ("beta", "a fraction"),
    ("temperature", "a fraction"),
    ("learning_rate", "a fraction"),
}
"""What is a value after all, or cannot be told before the step runs."""


def refusal(text: str, *overrides: str) -> UserError | None:
    """Return how a recipe is refused; None when it is not."""
    try:
        document = parse_document(text, "recipe.yaml")
        apply_overrides(document, overrides)
        load(document, CATALOGUE)
    except UserError as error:
        return error
    return None


def test_the_good_recipe_is_good():
    assert refusal(GOOD) is None


@pytest.mark.parametrize(("place", "name"), list(itertools.product(PLACES, VALUES)))
def test_a_value_that_does_not_fit_has_an_answer_with_its_line(place, name):
    error = refusal(f"{GOOD}  tried: {PLACES[place].replace('VALUE', VALUES[name])}\n")
    if error is None:
        assert (place, name) in ALLOWED or name not in VALUES, f"{place}: {name} was taken"
        return
    for problem in error.problems:
        assert problem.where.startswith("recipe.yaml:8") or problem.where == "recipe.yaml", problem
        assert len(problem.what) < 600 and "Traceback" not in problem.what


@pytest.mark.parametrize("name", VALUES)
def test_on_the_command_line_it_has_one_too(name):
    error = refusal(GOOD, f"weak.sampling.temperature={VALUES[name]}")
    if name in ("a fraction",):
        assert error is None
    else:
        assert error is not None and "command line" in error.problems[0].where


NAMES = ["a" * 300, "a/b", "a.b", "a@b", "", "-a", "é", "a b", "..", "$a", "con\u202e", "1" * 101]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_no_folder(name):
    quoted = '"' + name.replace('"', "") + '"'
    assert refusal(f"name: {quoted}\n" + GOOD.partition("\n")[2]) is not None
    assert refusal(GOOD + f"  {quoted}: {{kind: prompts, source: lab/addition, limit: 4}}\n") is not None


TEXTS = {
    "nothing": "",
    "a list": "- a\n- b\n",
    "a text": "hello",
    "two documents": "name: a\n---\nname: b\n",
    "a tab": "name: a\n\tseed: 0\n",
    "an open bracket": "name: [a\n",
    "an alias of nothing": "name: *a\n",
    "an alias within itself": "name: &a [*a]\n",
    "a bomb of aliases": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in itertools.pairwise("abcdefghij")),
    "a thousand brackets": "a: " + "[" * 1000 + "]" * 1000,
    "a hundred thousand brackets": "a: " + "[" * 100_000,
    "sixty levels": "a: " + "{a: " * 60 + "1" + "}" * 60,
    "keys that become one": GOOD
    + "  1: {kind: prompts, source: lab/addition}\n  '1': {kind: prompts, source: lab/addition}\n",
    "a key twice": GOOD + "  weak: {kind: prompts, source: lab/addition}\n",
    "a null key": GOOD + "  ~: {kind: prompts, source: lab/addition}\n",
    "steps as a list": "name: a\nsteps: [1, 2]\n",
    "steps of numbers": "name: a\nsteps: {a: 1}\n",
    "a step that reads itself": GOOD
    + "  a: {kind: generate, model: $a, prompts: $prompts, sampling: {max_tokens: 8}}\n",
    "a control character": "name: a\x01b\n",
    "a byte-order mark in the middle": "name: a\ufeff\nsteps: 1\n",
    "a version that is none": "w2s_align: yes\n" + GOOD,
    "a merge of a text": "name: a\nsteps:\n  a: {<<: text}\n",
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_that_is_no_recipe_has_an_answer(name):
    error = refusal(TEXTS[name])
    assert error is not None
    assert all(len(problem.what) < 600 for problem in error.problems)


SECRETS = [
    "http://127.0.0.1:9/v1?api_key=PLANTED",
    "http://user:PLANTED@127.0.0.1:9/v1",
    "http://PLANTED@127.0.0.1:9/v1",
    "http://127.0.0.1:9/v1#PLANTED",
    "ftp://user:PLANTED@host/v1",
]


@pytest.mark.parametrize("address", SECRETS)
def test_a_key_in_an_address_is_refused_and_not_repeated(address):
    step = f"  s: {{kind: generate, model: org/m, prompts: $prompts, sampling: {{temperature: 1, max_tokens: 8}}, engine: {{name: openai}}, resources: {{base_url: '{address}'}}}}\n"
    plain = step.replace(address, "http://127.0.0.1:9/v1")
    for error in (refusal(GOOD + step), refusal(GOOD + plain, f"s.resources.base_url={address}")):
        assert error is not None and "PLANTED" not in str(error)
    assert refusal(GOOD + plain) is None


@pytest.mark.parametrize("key", ["sk-abcdefPLANTED", "hf_abcdefghPLANTEDxyz", "PLANTED key", "lower_case_PLANTED"])
def test_a_key_in_place_of_the_name_of_a_variable_is_refused_and_not_repeated(key):
    step = "  s: {kind: generate, model: org/m, prompts: $prompts, sampling: {temperature: 1, max_tokens: 8}, engine: {name: openai}, resources: {base_url: 'http://127.0.0.1:9/v1', api_key_env: 'KEY'}}\n"
    error = refusal(GOOD + step.replace("KEY", key))
    assert error is not None and "PLANTED" not in str(error)
    assert refusal(GOOD + step.replace("KEY", "OPENAI_API_KEY")) is None


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", "no/such/file.yaml"],
        ["plan", "."],
        ["plan", "\udcff.yaml"],
        ["plan", "x" * 300 + ".yaml"],
        ["plan", "latin.yaml"],
        ["show", "\x1b[2J"],
        ["report", "nothing"],
        ["compare", "one"],
        ["run", "good.yaml", "--shard", "3/2"],
        ["run", "good.yaml", "--only", "nothing"],
        ["steps", "nothing"],
        ["sweep", "good.yaml", "weak.seed="],
    ],
)
def test_commands_end_with_2_and_no_traceback(arguments, tmp_path):
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "latin.yaml").write_bytes("name: gr\xfc\xdfe\n".encode("latin-1"))
    command = [sys.executable, "-m", "w2s_align.cli", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 2, said
    assert b"Traceback" not in said and b"\x1b[2J" not in said
    assert not list(tmp_path.glob("w2s_runs/runs/*"))


def test_an_unforeseen_error_is_one_line_and_a_log(tmp_path):
    code = (
        "import sys; sys.argv = ['w2s', 'recipes']\n"
        "import w2s_align.terminal.catalogue as c\n"
        "def broken(*a, **k): raise ZeroDivisionError('planted')\n"
        "c.recipes_table = broken\n"
        "from w2s_align.cli import main; main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "This is a bug of w2s: ZeroDivisionError: planted" in done.stderr and "Traceback" not in done.stderr
    log = Path(done.stderr.strip().rpartition(": ")[2])
    assert "Traceback" in log.read_text()
    log.unlink()
