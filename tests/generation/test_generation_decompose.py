"""Decompositions: how answers are read, three checks, what is left out and why, and a real server that is asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from w2s_align.errors import UserError
from w2s_align.generation.decompose import DecomposeWording, read_parts
from w2s_align.records import Prompt, from_table
from w2s_align.runs import recipe_from_text

DECOMPOSED = r"""**Sub-problem 1:** Fine: what is 3 + 4?
Solution 1: 3 + 4 = 7, and 7 = 7. \boxed{7}

### Sub-problem
Stolen: what is 7 times the hidden number?
### Solution
Solution by insight: 7 * 6 = \boxed{42}

Sub-problem: Short: what is 1?
Solution: \boxed{1}

Sub-problem: Unboxed: what is 2?
Solution: 2

Sub-problem: Unsolved: what is 3?
"""


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Sub-problem: a\nSolution: b", [("a", "b")]),
        ("sub-problem 1:\na\na\nsolution 1:\nb\n\nSubproblem 2: c\nSolution 2: d", [("a\na", "b"), ("c", "d")]),
        ("Sub-problem: a\nSub-problem: c\nSolution: d", [("a", ""), ("c", "d")]),
        ("Sub-problem: a\nSolution: b\nSolution of that is c", [("a", "b\nSolution of that is c")]),
        ("Sub-problem: a\nSolution:", [("a", "")]),
        ("Sub-problem: a", [("a", "")]),
        ("I would rather not.", []),
    ],
)
def test_parts_of_an_answer(text: str, parts: list[tuple[str, str]]) -> None:
    assert read_parts(text) == parts


def test_parts_in_markdown() -> None:
    assert [sub.split(":")[0] for sub, _ in read_parts(DECOMPOSED)] == [
        "Fine",
        "Stolen",
        "Short",
        "Unboxed",
        "Unsolved",
    ]
    assert read_parts(DECOMPOSED)[1][1].startswith("Solution by insight")


def test_a_template_names_its_parts() -> None:
    with pytest.raises(ValidationError, match=r"must name \{solution\}"):
        DecomposeWording(ask="Split {problem}")
    with pytest.raises(ValidationError, match=r"may name \{problem\}, \{sub_problem\} in braces"):
        DecomposeWording(variant="{problem} {sub_problem} {answer}")


class Splitter(BaseHTTPRequestHandler):
    """Answers the four questions by the words in them."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.reply({"object": "list", "data": [{"id": "splitter", "object": "model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = answer(body["messages"][-1]["content"])
        usage = {"prompt_tokens": 9, "completion_tokens": 9}
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        self.reply({"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage})

    def reply(self, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: Any) -> None:
        pass


def answer(question: str) -> str:
    if "Write two or three smaller problems" in question:
        if "mute" in question:
            return "I cannot."
        if "again" in question:
            return "Sub-problem: Again: what is it?\nSolution: again, \\boxed{5}"
        return DECOMPOSED
    if "does not give" in question:
        return "It hides one.\nAnswer: yes" if "Stolen" in question else "It is all there.\nAnswer: **no**"
    if "How many steps" in question:
        return "One.\nSteps: 1" if "Short" in question else "Two of them.\nSteps: 2"
    if "Is problem B nothing but" in question:
        return "Hm." if "Again" in question else "They differ.\nAnswer: no"
    return "hello"


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Splitter) as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{made.server_address[1]}/v1"
        made.shutdown()
        thread.join()


RECIPE = """\
name: decomposed
seed: 0
steps:
  hard: {{kind: prompts, source: {source}, task: hard}}
  parts:
    kind: decompose
    model: splitter
    prompts: $hard
    engine: {{name: openai, api: chat}}
    resources: {{base_url: "{server}", cpus: 1}}
"""


def test_a_recipe_keeps_what_passes_the_checks_and_says_what_does_not(server: str, tmp_path: Path) -> None:
    rows = [
        {"prompt": "split me", "answer": r"3 + 4 = 7, 7 * 6 = \boxed{42}"},
        {"prompt": "mute", "answer": r"\boxed{1}"},
        {"prompt": "again", "answer": r"\boxed{5}"},
        {"prompt": "unsolved", "answer": None},
    ]
    source = tmp_path / "hard.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = recipe_from_text(RECIPE.format(source=source, server=server)).run(tmp_path / "runs")
    problem = from_table(Prompt, run.artifact("hard").table())[0]
    artifact = run.artifact("parts")
    (part,) = from_table(Prompt, artifact.table())
    assert part.messages == [{"role": "user", "content": "Fine: what is 3 + 4?"}]
    assert part.answer == r"3 + 4 = 7, and 7 = 7. \boxed{7}"
    assert (part.task, part.group, part.meta) == ("hard", problem.id, {"problem": problem.id, "steps": 2})
    assert artifact.manifest["counts"]["dropped"] == {
        "problem without a solution": 1,
        "no sub-problem in the answer": 1,
        "no boxed result": 1,
        "no solution": 1,
        "uses what it does not give": 1,
        "too few steps": 1,
        "unreadable check": 1,
    }
    assert artifact.manifest["counts"]["rows_in"] == 4 and artifact.manifest["counts"]["kept"] == 1


def test_nothing_left_is_said(server: str, tmp_path: Path) -> None:
    source = tmp_path / "hard.jsonl"
    source.write_text(json.dumps({"prompt": "mute", "answer": "1"}) + "\n")
    with pytest.raises(UserError, match="no sub-problem in the answer: 1"):
        recipe_from_text(RECIPE.format(source=source, server=server)).run(tmp_path / "runs")
