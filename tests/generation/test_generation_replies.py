"""Whatever a server replies is one failed answer with a reason, and what the journal holds can always leave it."""

from __future__ import annotations

import gzip
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from w2s_align.errors import UserError
from w2s_align.generation import Engine, EngineResources, Generation, Sampling, generate
from w2s_align.generation.completions import storable
from w2s_align.generation.engines import server as connection
from w2s_align.generation.engines.base import Completion, Request
from w2s_align.generation.journal import Journal, finished_rows
from w2s_align.generation.row_check import ROW_COLUMNS
from w2s_align.records import Response

CHAT = Engine(name="openai", api="chat")


def said(**changes: Any) -> dict[str, Any]:
    """A good reply with some of its fields changed; ``choice`` and ``usage`` are merged."""
    choice = {
        "finish_reason": "stop",
        "message": {"content": "fine"},
        "logprobs": {"content": [{"logprob": -0.5}, {"logprob": -1.0}]},
        **changes.pop("choice", {}),
    }
    usage = changes.pop("usage", {})
    usage = {"prompt_tokens": 5, "completion_tokens": 2, **usage} if isinstance(usage, dict) else usage
    return {"choices": [choice], "usage": usage, **changes}


def logprobs(*values: Any) -> dict[str, Any]:
    return said(choice={"logprobs": {"content": [{"logprob": value} for value in values]}})


REPLIES: dict[str, tuple[Any, str | None]] = {
    "good": (said(), None),
    "eos": (said(choice={"finish_reason": "eos"}), None),
    "surrogate": (said(choice={"message": {"content": "a\ud800b"}}), None),
    "message is text": (said(choice={"message": "text"}), "message is 'text', not a mapping"),
    "content is a list": (said(choice={"message": {"content": [1]}}), "a text was expected, not a list"),
    "content is a number": (said(choice={"message": {"content": 7}}), "a text was expected, not 7"),
    "refusal is a list": (said(choice={"message": {"refusal": [1]}}), "a text was expected"),
    "reasoning is a mapping": (
        said(choice={"message": {"content": "x", "reasoning": {"a": 1}}}),
        "a text was expected, not a mapping",
    ),
    "choices null": (said(choices=None), "The reply is broken"),
    "choices empty": (said(choices=[]), "The reply is broken"),
    "choices text": (said(choices="text"), "a choice is 't', not a mapping"),
    "choice null": (said(choices=[None]), "a choice is None, not a mapping"),
    "null": (None, "The reply is broken"),
    "list": ([1, 2], "The reply is broken"),
    "number": (5, "The reply is broken"),
    "usage null": (said(usage=None), "usage is None, not a mapping"),
    "usage text": (said(usage="7"), "usage is '7', not a mapping"),
    "counts as text": (said(usage={"prompt_tokens": "5"}), "prompt_tokens is '5', not a number of tokens"),
    "negative": (said(usage={"completion_tokens": -3}), "completion_tokens is -3, not a number of tokens"),
    "absurdly negative": (
        said(usage={"completion_tokens": -(10**30)}),
        "completion_tokens is a number beyond 64 bits",
    ),
    "absurdly large": (said(usage={"prompt_tokens": 2**31}), "prompt_tokens is 2147483648, not a number"),
    "infinite": (said(usage={"prompt_tokens": float("inf")}), "prompt_tokens is inf, not a number of tokens"),
    "not a number": (said(usage={"completion_tokens": float("nan")}), "completion_tokens is nan"),
    "true": (said(usage={"completion_tokens": True}), "completion_tokens is True"),
    "5,000 digits": (
        b'{"choices": [], "usage": {"prompt_tokens": ' + b"9" * 5000 + b"}}",
        "The reply is broken .ValueError",
    ),
    "finish_reason is a list": (said(choice={"finish_reason": ["stop"]}), "finish_reason is a list"),
    "odd finish_reason": (said(choice={"finish_reason": "x\ud800" * 500}), None),
    "logprob NaN": (logprobs(float("nan")), "the log-probability is nan, not a finite number"),
    "logprob -Infinity": (logprobs(-1.0, -float("inf")), "the log-probability is -inf"),
    "logprob text": (logprobs("-1"), "the log-probability is '-1'"),
    "logprobs overflow": (logprobs(-1e308, -1e308), "the log-probability is -inf"),
    "logprob of 400 digits": (logprobs(-(10**400)), "the log-probability is a number beyond 64 bits"),
    "logprobs null": (said(choice={"logprobs": None}), "logprobs is None, not a mapping"),
    "deep": (b"[" * 100_000 + b"]" * 100_000, "The reply is broken .RecursionError"),
    "deep inside": (
        b'{"choices": [{"finish_reason": "stop", "message": ' + b"[" * 100_000 + b"]" * 100_000 + b"}]}",
        "The reply is broken .RecursionError",
    ),
    "not UTF-8": (b'{"choices": "\xff\xfe"}', "The reply is broken .UnicodeDecodeError"),
    "empty": (b"", "The reply is broken .JSONDecodeError"),
    "huge": (b" " * 2_000_000, "The reply is longer than 1 MiB"),
    "bomb": (gzip.compress(b" " * 50_000_000), "The reply is longer than 1 MiB"),
    "gzip that is none": (b"\x1f\x8b not gzip", "The connection failed"),
}
ERRORS: dict[str, tuple[Any, str]] = {
    "error with half a pair": ({"error": {"message": "bad \ud800"}}, "HTTP 400: bad \N{REPLACEMENT CHARACTER}"),
    "error that is deep": (b"[" * 100_000, r"HTTP 400: \[\[\["),
    "error of 5,000 digits": (b"9" * 5000, "HTTP 400: 999"),
    "error message null": ({"error": None}, "HTTP 400: null"),
}
KINDS = [*REPLIES, *ERRORS]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cards: ClassVar[Any] = [
        None,
        "text",
        {"id": "tiny", "max_model_len": -1, "owned_by": "vllm", "root": "\0"},
        {"id": "a\ud800", "root": "x" * 5000},
    ]

    def log_message(self, *args: Any) -> None:
        pass

    def reply(self, status: int, body: Any) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if data.startswith(b"\x1f\x8b"):
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        listed = self.path == "/v1/models"
        self.reply(200, {"data": self.cards} if listed else {"version": "1\ud800"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][-1]["content"]
        if prompt in ERRORS:
            self.reply(400, ERRORS[prompt][0])
        else:
            self.reply(200, REPLIES.get(prompt, REPLIES["good"])[0])


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client closes the connection within a huge reply."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = Quiet(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def ask(url: str, prompts: list[str], **options: Any) -> Generation:
    resources = EngineResources(base_url=url, retries=0, max_failed_share=1, concurrency=4)
    sampling = Sampling(temperature=1, max_tokens=20, logprobs=True)
    return generate("tiny", prompts, sampling, engine=CHAT, resources=resources, **options)


@pytest.fixture(scope="module")
def rows(url: str) -> dict[str, dict[str, Any]]:
    """One job whose every prompt gets another reply."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "MOST_BYTES", 2**20)
        result = ask(url, KINDS)
    assert result.rows == len(KINDS)
    return dict(zip(KINDS, result.table().to_pylist(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_reply_is_an_answer_or_a_failed_one_with_its_reason(rows: dict[str, dict[str, Any]], kind: str) -> None:
    row, wanted = rows[kind], (REPLIES | ERRORS)[kind][1]
    if wanted is None:
        text = "a\N{REPLACEMENT CHARACTER}b" if kind == "surrogate" else "fine"
        assert (row["text"], row["finish_reason"], row["error"]) == (text, "stop", None)
        assert (row["prompt_tokens"], row["completion_tokens"], row["logprob"]) == (5, 2, -1.5)
    else:
        assert (row["text"], row["finish_reason"], row["completion_tokens"] in (0, 2)) == (None, "error", True)
        assert re.search(wanted, row["error"])
        assert len(row["error"]) < 1000


def row(number: int, **changes: Any) -> dict[str, Any]:
    columns = {**dict.fromkeys(ROW_COLUMNS), "text": "old", "finish_reason": "stop"}
    return {"row": number, **columns, "prompt_tokens": 5, "completion_tokens": 2, "logprob": -1.0, **changes}


BAD = [
    row(1, completion_tokens=-(10**30)),
    row(2, prompt_tokens=float("inf")),
    row(3, logprob=float("nan")),
    row(4, text=["x"]),
    row(5, finish_reason="odd"),
    row(6, prompt_tokens=None),
    row(7, seed=2**64),
    {"row": 8, "text": "half a row"},
    row(-1),
    row(99),
    {**row(0), "row": "9"},
    {"note": ["x"]},
]


def test_an_old_journal_that_could_not_be_written_as_parquet_repairs_itself(url: str, tmp_path: Path) -> None:
    prompts = [f"prompt {i}" for i in range(10)]
    path = tmp_path / "out" / "journal.jsonl"
    whole = ask(url, prompts, out=tmp_path / "whole")
    job = json.loads((tmp_path / "whole" / "generation.json").read_text())["job"]
    path.parent.mkdir()
    lines = [json.dumps(line) for line in ({"job": job}, row(0), *BAD)] + ["[" * 100_000, '{"row": 9, "text": "torn']
    path.write_text("\n".join(lines) + "\n")
    assert list(finished_rows(path, 10)) == [0]
    result = ask(url, prompts, out=path.parent)
    assert result.table()["text"].to_pylist() == ["old", *["fine"] * 9]
    assert [text for text in result.warnings if "unusable" in text] == [
        f"{len(BAD)} unusable lines in journal.jsonl count as not generated: "
        "row 1: completion_tokens is a number beyond 64 bits, not a number of tokens."
    ]
    assert not [text for text in whole.warnings if "unusable" in text]


def test_the_columns_of_a_journal_are_those_of_responses() -> None:
    named = {field.name for field in Response.SCHEMA} - {"prompt_id", "sample", "model"}
    assert ROW_COLUMNS - {"thought"} == named


def test_what_any_engine_returns_is_checked_before_the_journal(tmp_path: Path) -> None:
    made = [
        Completion(Request(0, [1], 0), "a\ud800", "stop", 3, reasoning="\udfff"),
        Completion(Request(1, [1], 0), "b", "stop", 3, logprob=float("nan")),
        Completion(Request(2, [1], 0), "c", "stop", -1),
    ]
    kept = [storable(completion) for completion in made]
    assert [(done.text, done.error) for done in kept] == [
        ("a\N{REPLACEMENT CHARACTER}", None),
        (None, "The answer is unusable: the log-probability is nan, not a finite number."),
        (None, "The answer is unusable: completion_tokens is -1, not a number of tokens."),
    ]


def test_a_journal_whose_first_line_is_not_its_own_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    for first in ('{"job": "x"}', '{"job": [1]}', "{}"):
        path.write_text(first + "\n")
        with pytest.raises(UserError, match="holds an unfinished generation with other settings"):
            Journal(path, {"seed": 0}, 3)
