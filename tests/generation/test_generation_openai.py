"""The openai engine against a server of our own, which says what it was asked and fails in every way servers do."""

from __future__ import annotations

import email.utils
import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from w2s_align.errors import UserError
from w2s_align.generation import Engine, EngineResources, Generation, Sampling, generate, request_seed, stats
from w2s_align.generation.engines import openai
from w2s_align.generation.engines import server as connection
from w2s_align.generation.engines.base import Request
from w2s_align.generation.engines.openai_schema import read_completion
from w2s_align.generation.engines.server import _seconds_to_wait
from w2s_align.generation.settings import Price, server_address
from w2s_align.records import Prompt

PROMPTS = [f"{i}+{i}=" for i in range(40)]
SAMPLING = Sampling(temperature=1, max_tokens=20)
OPENAI = Engine(name="openai", served_model="tiny")
CHAT = Engine(name="openai", api="chat")
FIRST = "tries"  # the short request that comes before all others


class FakeServer(ThreadingHTTPServer):
    """Answers with the prompt it was given, after whatever ``fault`` does.

    Attributes:
        fault: Called with the prompt (its token ids as text, or the last message) and how often it has been asked for;
            what it returns is done: ``None`` (answer), ``(status, headers, body)``, ``hang``, ``cut``, ``broken``.
        bodies: Every request.
        asked: How often each prompt was asked for.
        answered: How often each prompt got its answer.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.fault: Callable[[str, int], Any] = lambda prompt, time: None
        self.changes: dict[str, Any] = {}
        self.usage: Callable[[int, int], tuple[int, int]] = lambda prompt, limit: (prompt, min(3, limit))
        self.key: str | None = None
        self.pause = 0.0
        self.bodies: list[dict[str, Any]] = []
        self.asked: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no error here."""

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeServer

    def log_message(self, *args: Any) -> None:
        pass

    def reply(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def denied(self) -> bool:
        given = self.headers.get("Authorization")
        if self.server.key is None or given == f"Bearer {self.server.key}":
            return False
        self.reply(401, {"error": {"message": f"Incorrect API key provided: {given}"}})
        return True

    def do_GET(self) -> None:
        if not self.denied():
            cards = [{"id": name, "max_model_len": 128} for name in ("tiny", "Qwen/Qwen2.5-1.5B-Instruct")]
            self.reply(200 if self.path == "/v1/models" else 404, {"object": "list", "data": cards})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        if self.denied():
            return
        chat = "messages" in body
        prompt = body["messages"][-1]["content"] if chat else " ".join(map(str, body["prompt"]))
        if prompt in ("2", "Hi"):
            prompt = FIRST
        with server.lock:
            server.bodies.append(body)
            server.asked[prompt] += 1
            fault = server.fault(prompt, server.asked[prompt])
        time.sleep(server.pause)
        if fault == "hang":
            time.sleep(4)
        if fault in ("hang", "cut"):
            self.close_connection = True
            return
        if fault == "broken":
            self.reply(200, b'{"choices": [{"te')
            return
        if fault is not None:
            status, headers, reply = fault
            self.reply(status, reply, headers)
            return
        tokens, written = server.usage(1 if chat else len(body["prompt"]), body.get("max_tokens", 99))
        said = f"answer to {prompt} with {body.get('seed')}"
        choice = {"message": {"content": said}} if chat else {"text": said}
        choice = {"finish_reason": "stop", **choice, **server.changes}
        with server.lock:
            server.answered[prompt] += 1
        self.reply(200, {"choices": [choice], "usage": {"prompt_tokens": tokens, "completion_tokens": written}})


@pytest.fixture
def server() -> Iterator[FakeServer]:
    server = FakeServer()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(connection, "LONGEST_PAUSE", 0.02)


def ask(server: FakeServer, model: Path | str, prompts: list[str] = PROMPTS, **options: Any) -> Generation:
    resources = {"base_url": server.url, "request_timeout": 10, "concurrency": 16, **options.pop("resources", {})}
    options = {"engine": OPENAI, "sampling": SAMPLING, **options}
    return generate(model, prompts, resources=EngineResources(**resources), **options)


def ids(prompt: str) -> str:
    """What the server sees of a prompt: <s> <user> prompt <assistant>."""
    characters = "0123456789+=, .?abcdefghijklmnopqrstuvwxyz"
    return " ".join(map(str, [2, 4, *(7 + characters.index(c) for c in prompt), 5]))


def expected(prompts: list[str] = PROMPTS) -> list[str]:
    return [f"answer to {ids(p)} with {request_seed(0, Prompt.of(p).id, 0)}" for p in prompts]


def test_every_sampling_option_is_sent_also_those_that_are_off(server: FakeServer, tiny_model: Path) -> None:
    result = ask(server, tiny_model, ["1+1="])
    assert server.bodies[-1] == {
        "model": "tiny",
        "stream": False,
        "prompt": [2, 4, 8, 17, 8, 18, 5],
        "temperature": 1.0,
        "max_tokens": 20,
        "n": 1,
        "top_p": 1.0,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "stop_token_ids": [3],
        "seed": request_seed(0, Prompt.of("1+1=").id, 0),
    }
    assert server.bodies[0] == {**server.bodies[-1], "prompt": [2], "max_tokens": 16}
    assert (result.engine["name"], result.engine["device"]) == ("openai", server.url)
    assert (result.gpu_seconds, result.cost, result.engine["max_model_len"]) == (0, None, 128)


def test_greedy_decoding_has_no_seed_and_stop_texts_are_sent(server: FakeServer, tiny_model: Path) -> None:
    ask(server, tiny_model, ["1+1="], sampling=Sampling(temperature=0, max_tokens=200, stop=["ab"], top_k=0))
    assert "seed" not in server.bodies[-1]
    assert server.bodies[-1]["stop"] == ["ab"]
    assert server.bodies[-1]["max_tokens"] == 128 - 7  # a server would refuse more than its context


def test_samples_are_requests_with_seeds_of_their_own(server: FakeServer, tiny_model: Path) -> None:
    result = ask(server, tiny_model, ["1+1=", "2+2="], sampling=SAMPLING.model_copy(update={"n": 3}))
    wanted = [request_seed(0, Prompt.of(p).id, s) for p in ("1+1=", "2+2=") for s in range(3)]
    assert result.table()["seed"].to_pylist() == wanted
    assert [int(text.split()[-1]) for text in result.table()["text"].to_pylist()] == wanted


FAULTS = {
    "429 with a pause": (429, {"Retry-After": "0.2"}, {"error": {"message": "slow down"}}),
    "500": (500, {}, b"<html>oops</html>"),
    "503": (503, {}, {"message": "loading"}),
    "cut": "cut",
    "broken": "broken",
    "no choices": (200, {}, {"choices": [], "usage": {}}),
    "hang": "hang",
    "aborted": (200, {}, {"choices": [{"text": "half", "finish_reason": "abort"}], "usage": {"prompt_tokens": 7}}),
}


def test_after_every_fault_nothing_is_lost_and_nothing_twice(server: FakeServer, tiny_model: Path) -> None:
    faults = list(FAULTS.values())
    turn = {ids(prompt): faults[i % len(faults)] for i, prompt in enumerate(PROMPTS)}
    server.fault = lambda prompt, time: turn.get(prompt) if time <= 2 else None
    notes: list[str] = []
    result = ask(server, tiny_model, progress=lambda *said: notes.append(said[2]), resources={"request_timeout": 1.5})
    assert result.table()["text"].to_pylist() == expected()
    assert server.asked == {ids(prompt): 3 for prompt in PROMPTS} | {FIRST: 1}
    assert set(server.answered.values()) == {1}
    assert result.retries == {
        "HTTP 429": 10,
        "HTTP 500": 10,
        "HTTP 503": 10,
        "connection": 10,
        "broken reply": 30,
        "time-out": 10,
    }
    assert (result.failed, result.finish_reasons) == ({}, {"stop": 40, "length": 0, "error": 0})
    assert notes[-1].endswith("80 retries")


def test_what_fails_for_good_is_recorded_with_its_reason(server: FakeServer, tiny_model: Path) -> None:
    faults = {
        ids(PROMPTS[3]): FAULTS["500"],
        ids(PROMPTS[5]): (400, {}, {"error": {"message": "content policy"}}),
        ids(PROMPTS[7]): "hang",
        ids(PROMPTS[9]): (200, {}, {"choices": [{"text": "", "finish_reason": "content_filter"}], "usage": USAGE}),
    }
    server.fault = lambda prompt, time: faults.get(prompt)
    result = ask(server, tiny_model, resources={"max_failed_share": 0.1, "retries": 3, "request_timeout": 1.5})
    rows = result.table().to_pylist()
    assert {i: row["error"] for i, row in enumerate(rows) if row["error"]} == {
        3: "HTTP 500: <html>oops</html> (tried 4 times)",
        5: "HTTP 400: content policy",
        7: "The server did not reply within 1.5 s. (tried 3 times)",
        9: "The server ended the completion: content_filter (no text)",
    }
    assert [(row["text"], row["finish_reason"]) for row in rows if row["error"]] == [(None, "error")] * 4
    assert result.failed == {row["error"]: 1 for row in rows if row["error"]}
    assert result.finish_reasons == {"stop": 36, "length": 0, "error": 4}
    assert result.retries == {"HTTP 500": 3, "time-out": 2}


USAGE = {"prompt_tokens": 7, "completion_tokens": 0}


def test_too_many_failures_stop_the_job_and_are_tried_again(
    server: FakeServer, tiny_model: Path, tmp_path: Path
) -> None:
    bad = {ids(prompt) for prompt in PROMPTS[10:13]}
    server.fault = lambda prompt, time: FAULTS["500"] if prompt in bad else None
    # One at a time: what is on its way when a job stops is asked for again.
    options: dict[str, Any] = {"out": tmp_path / "out", "resources": {"max_failed_share": 0.05, "concurrency": 1}}
    with pytest.raises(UserError, match=r"3 of 40 responses failed for good, more than the 5\.0%.*3 times.*HTTP 500"):
        ask(server, tiny_model, **options)
    assert len(server.answered) == 11  # the short request, and the ten before the first bad one
    server.fault = lambda prompt, time: None
    result = ask(server, tiny_model, **options)
    assert result.table()["text"].to_pylist() == expected()
    assert (result.failed, result.finish_reasons["error"]) == ({}, 0)
    assert server.answered == {**{ids(prompt): 1 for prompt in PROMPTS}, FIRST: 2}


def test_a_server_that_goes_away_ends_the_job_until_it_is_back(tiny_model: Path, tmp_path: Path) -> None:
    prompts = [f"{i}+{i}=" for i in range(200)]
    first = FakeServer()
    options: dict[str, Any] = {"prompts": prompts, "out": tmp_path / "out", "resources": {"retries": 2}}

    def leaves(prompt: str, time: int) -> str | None:
        return "cut" if len(first.answered) > 60 else None

    first.fault = leaves
    stop = threading.Thread(target=lambda: (wait_for(lambda: len(first.answered) > 60), first.close()))
    stop.start()
    with pytest.raises(UserError, match=r"stopped responding.*run the same command again"):
        ask(first, tiny_model, **options)
    stop.join()
    lines = map(json.loads, (tmp_path / "out" / "journal.jsonl").read_text().splitlines())
    finished = {ids(prompts[line["row"]]) for line in lines if line.get("text") is not None}
    assert len(finished) > 30
    second = FakeServer(first.server_port)
    result = ask(second, tiny_model, **options)
    second.close()
    assert result.table()["text"].to_pylist() == expected(prompts)
    assert set(second.asked) == {ids(prompt) for prompt in prompts} - finished | {FIRST}


def wait_for(what: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_server_that_loses_every_answer_is_given_up(
    server: FakeServer, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai, "FAILED_IN_A_ROW", 20)
    server.fault = lambda prompt, time: None if prompt == FIRST else FAULTS["503"]
    with pytest.raises(UserError, match=r"20 requests in a row failed; the last: HTTP 503: loading"):
        ask(server, tiny_model, resources={"max_failed_share": 1, "retries": 1})
    assert sum(server.asked.values()) < 90


def test_silence_shows_in_the_progress(server: FakeServer, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stats, "SILENCE_SECONDS", 1.0)
    server.fault = lambda prompt, time: None if time > 1 or prompt != ids(PROMPTS[0]) else "hang"
    notes: list[str] = []
    ask(server, tiny_model, progress=lambda *said: notes.append(said[2]), resources={"request_timeout": 2})
    assert any(note.endswith("no response for 1 s") for note in notes)
    assert any(" left" in note for note in notes)


def test_what_is_asked_when_the_server_says_wait(server: FakeServer, tiny_model: Path) -> None:
    """Retry-After holds for all requests: after the first 429, none comes before its time."""
    times: list[float] = []

    def fault(prompt: str, count: int) -> Any:
        times.append(time.monotonic())
        return (429, {"Retry-After": "0.4"}, {}) if len(times) == 2 else None

    server.fault = fault
    result = ask(server, tiny_model, resources={"concurrency": 1})
    assert result.rows == 40
    assert times[2] - times[1] >= 0.4


def test_words_of_a_server_are_valid_unicode_and_nothing_but_words_is_taken() -> None:
    def read(content: Any) -> str | None:
        choice = {"finish_reason": "stop", "message": {"content": content, "reasoning": "half \udc00"}}
        reply = {"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
        done = read_completion(reply, Request(0, [], None), 4, logprobs=False)
        assert done.reasoning in (None, "half \N{REPLACEMENT CHARACTER}")
        return done.text

    assert read("a\ud83db") == "a\N{REPLACEMENT CHARACTER}b"
    with pytest.raises(TypeError, match="a text was expected"):  # asked for again, then a failed answer
        read([{"type": "text", "text": "x"}])


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        *dict.fromkeys(("stop", "eos", "eos_token", "EOS", "end_turn", "stop_sequence", "stop-str"), "stop").items(),
        *dict.fromkeys(("length", "max_tokens", "MAX_TOKENS", "max_new_tokens", "model_length"), "length").items(),
        *dict.fromkeys(("content_filter", "SAFETY", "tool_calls"), "error").items(),
    ],
)
def test_finish_reasons_of_other_servers(said: str, reason: str) -> None:
    done = read_completion(reply_of({"finish_reason": said}), Request(0, [], None), 4, logprobs=False)
    assert (done.finish_reason, done.unknown_finish) == (reason, None)
    assert done.text == (None if reason == "error" else "x")


def test_an_unknown_finish_reason_is_kept_and_said(server: FakeServer, tiny_model: Path) -> None:
    server.changes = {"finish_reason": "ran_dry"}
    result = ask(server, tiny_model)
    assert result.finish_reasons["error"] == 0 and result.finish_reasons["stop"] == 40
    assert ["'ran_dry'" in warning and "40 responses" in warning for warning in result.warnings] == [True]
    full = reply_of({"finish_reason": "ran_dry"}, completion_tokens=4)
    assert read_completion(full, Request(0, [], None), 4, logprobs=False).finish_reason == "length"


def reply_of(choice: dict[str, Any], **usage: Any) -> dict[str, Any]:
    tokens = {"prompt_tokens": 1, "completion_tokens": 1, **usage}
    return {"choices": [{"finish_reason": "stop", "message": {"content": "x"}, **choice}], "usage": tokens}


@pytest.mark.parametrize(
    "reply",
    [
        reply_of({}, completion_tokens=-(10**30)),
        reply_of({}, prompt_tokens=float("inf")),
        reply_of({}, prompt_tokens=10**30),
        reply_of({"message": "text"}),
        reply_of({"finish_reason": "cancelled"}),
    ],
)
def test_a_reply_that_no_server_should_send_is_a_broken_one(reply: dict[str, Any]) -> None:
    with pytest.raises((LookupError, TypeError, ValueError)):
        read_completion(reply, Request(0, [], None), 4, logprobs=False)


def test_a_huge_or_nested_reply_is_one_failed_answer(
    server: FakeServer, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MOST_BYTES", 10_000_000)
    packed = gzip.compress(b" " * 20_000_000)
    faults = {
        ids(PROMPTS[3]): (200, {"Content-Encoding": "gzip"}, packed),
        ids(PROMPTS[5]): (200, {}, b"[" * 100_000),
    }
    server.fault = lambda prompt, time: faults.get(prompt)
    result = ask(server, tiny_model, resources={"max_failed_share": 0.1, "retries": 0})
    errors = [row["error"] for row in result.table().to_pylist() if row["error"]]
    assert len(errors) == 2
    assert "longer than 9 MiB" in errors[0] and "RecursionError" in errors[1]


def test_retry_after_is_seconds_or_a_date() -> None:
    assert [_seconds_to_wait(value) for value in (None, "7", "1.5", "-3", "soon", "100000")] == [0, 7, 1.5, 0, 0, 600]
    assert 25 < _seconds_to_wait(email.utils.formatdate(time.time() + 30, usegmt=True)) <= 30


UNKNOWN_FIELD = {"error": {"message": "Unrecognized request argument supplied: top_k"}}


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (
            {},
            {"resources": {"base_url": "http://127.0.0.1:1/v1"}},
            r"127\.0\.0\.1:1/v1 gave no usable reply.*vllm serve",
        ),
        (
            {},
            {"engine": Engine(name="openai", served_model="Qwen/Qwen2.5-1.5-Instruct")},
            r"does not serve Qwen/Qwen2\.5-1\.5-Instruct.*It serves: tiny, Qwen.*Did you mean Qwen/Qwen2\.5-1\.5B-",
        ),
        ({"key": "s3cret"}, {}, r"refuses requests without an API key.*Incorrect API key.*api_key_env"),
        (
            {"key": "s3cret"},
            {"resources": {"api_key_env": "W2S_TEST_KEY"}},
            r"refuses the API key.*Bearer \*\*\*.*Check the environment variable W2S_TEST_KEY",
        ),
        (
            {},
            {"resources": {"api_key_env": "W2S_NO_KEY"}},
            r"variable W2S_NO_KEY, which .* key, is not set",
        ),
        (
            {"fault": lambda prompt, time: (400, {}, UNKNOWN_FIELD)},
            {},
            r"refuses the field top_k.*Unrecognized request arg.*server_fields: \{top_k: null\}.*min_p: null",
        ),
        (
            {"fault": lambda prompt, time: (422, {}, {"detail": "prompt must be a text"})},
            {},
            r"refuses the request.*prompt must be a text.*engine\.api: chat",
        ),
        (
            {"fault": lambda prompt, time: (404, {}, {"detail": "Not Found"})},
            {},
            r"has no /completions, or not for the model tiny.*base_url",
        ),
        (
            {"usage": lambda prompt, limit: (prompt + 1, 3)},
            {},
            r"counts 2 tokens in a prompt of 1: it changes",
        ),
        ({"usage": lambda prompt, limit: (prompt, 17)}, {}, r"17 tokens where 16 were allowed: it ignores max_tokens"),
        (
            {},
            {
                "engine": OPENAI.model_copy(update={"server_fields": {"min_p": None}}),
                "sampling": SAMPLING.model_copy(update={"min_p": 0.1}),
            },
            r"sampling\.min_p is 0\.1, but engine\.server_fields leaves min_p out",
        ),
    ],
    ids=["address", "model", "no_key", "wrong_key", "unset_key", "field", "ids", "path", "bos", "endless", "left_out"],
)
def test_what_cannot_work_is_one_error_before_the_first_answer(
    server: FakeServer,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    options: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.setenv("W2S_TEST_KEY", "wr0ng")
    for name, value in change.items():
        setattr(server, name, value)
    with pytest.raises(UserError, match=message) as caught:
        ask(server, tiny_model, **options)
    assert "wr0ng" not in str(caught.value)
    assert sum(server.asked.values()) <= 1


@pytest.mark.parametrize(
    ("group", "options", "message"),
    [
        (Engine, {"name": "vllm", "api": "chat"}, "api: only for a server; set name: openai"),
        (
            Engine,
            {"served_model": "a", "server_fields": {"n": None}},
            "served_model, server_fields: only for a server",
        ),
        (Engine, {"name": "openai", "api": "chat", "prefill": "A"}, "prefill needs api: completions"),
        (
            Engine,
            {"name": "openai", "server_fields": {"topk": None}},
            "topk is not a request.*Did you mean top_k",
        ),
        (Engine, {"name": "openai", "server_fields": {"max_tokens": None}}, "responses would have no limit"),
        (EngineResources, {"base_url": "localhost:8000"}, "is not the address of a server; write e.g. http"),
        (EngineResources, {"base_url": "http://me:pw@host/v1"}, "must not contain a user or a password.*api_key_env"),
    ],
)
def test_options_that_cannot_work(group: type, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        group(**options)
    assert Engine(**Engine().model_dump()) == Engine()  # as a worker reads the options of a step again


@pytest.mark.parametrize(
    ("url", "address"),
    [("http://h:1", "http://h:1/v1"), ("http://h/v1/", "http://h/v1"), ("https://h/a", "https://h/a")],
)
def test_v1_is_added_where_only_a_host_is_given(url: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert server_address(EngineResources(base_url=url)) == address
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(UserError, match=r"needs the address of a server.*resources\.base_url.*OPENAI_BASE_URL"):
        server_address(EngineResources())
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    assert server_address(EngineResources()) == address


def test_fields_by_another_name_and_left_out(server: FakeServer, tiny_model: Path) -> None:
    names = {"top_k": None, "min_p": None, "repetition_penalty": None, "stop_token_ids": None}
    engine = OPENAI.model_copy(update={"server_fields": {**names, "max_tokens": "max_completion_tokens"}})
    ask(server, tiny_model, ["1+1="], engine=engine)
    assert sorted(server.bodies[-1]) == [
        *("frequency_penalty", "max_completion_tokens", "model", "n", "presence_penalty", "prompt", "seed", "stream"),
        *("temperature", "top_p"),
    ]


def test_a_chat_is_sent_as_messages_where_no_tokenizer_is_at_hand(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("W2S_TEST_KEY", "s3cret")
    server.key = "s3cret"
    server.changes = {
        "message": {"content": "4", "reasoning_content": "two and two"},
        "logprobs": {"content": [{"logprob": -0.5}, {"logprob": -0.25}]},
    }
    result = ask(
        server,
        "Qwen/Qwen2.5-1.5B-Instruct",
        ["2+2="],
        engine=CHAT.model_copy(
            update={"system_prompt": "Be brief.", "chat_template_kwargs": {"a": 1}, "thinking": "separate"}
        ),
        sampling=SAMPLING.model_copy(update={"logprobs": True}),
        resources={"api_key_env": "W2S_TEST_KEY", "price": Price(million_completion_tokens=2e6)},
    )
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2="}]
    assert (server.bodies[-1]["messages"], server.bodies[-1]["chat_template_kwargs"]) == (messages, {"a": 1})
    assert (server.bodies[-1]["logprobs"], "stop_token_ids" in server.bodies[-1]) == (True, False)
    row = result.table().to_pylist()[0]
    assert (row["text"], row["reasoning"], row["prompt_tokens"], row["logprob"]) == ("4", "two and two", 1, -0.75)
    assert (result.model, result.first_prompt, result.cost) == (server.bodies[0]["model"], {"messages": messages}, 6.0)
    assert "chat template is unknown" in result.warnings[0]
    assert "s3cret" not in json.dumps(result.to_json())


def test_a_notebook_can_call_it(server: FakeServer, tiny_model: Path) -> None:
    """In a notebook, an event loop is running where generate is called."""
    import asyncio

    async def cell() -> Generation:
        return ask(server, tiny_model)

    assert asyncio.run(cell()).rows == 40


def test_a_killed_job_goes_on_and_asks_for_nothing_twice(server: FakeServer, tiny_model: Path, tmp_path: Path) -> None:
    """SIGKILL, twice; only what was on its way at that moment is asked for again."""
    prompts = [f"{i}+{i}=" for i in range(300)]
    server.pause = 0.02
    script = f"""
from pathlib import Path
from w2s_align.generation import *
generate(Path({str(tiny_model)!r}), [f"{{i}}+{{i}}=" for i in range(300)], Sampling(temperature=1, max_tokens=20),
         out=Path({str(tmp_path / "out")!r}), engine=Engine(name="openai", served_model="tiny"),
         resources=EngineResources(base_url={server.url!r}, concurrency=8))
"""
    for kill in range(1, 3):
        process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
        wait_for(lambda kill=kill: len(server.answered) > 80 * kill, 120)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert len(server.answered) < 300
    result = ask(server, tiny_model, prompts, out=tmp_path / "out")
    assert result.table()["text"].to_pylist() == expected(prompts)
    again = [prompt for prompt, count in server.asked.items() if count > 1 and prompt != FIRST]
    assert len(again) <= 2 * 8


STEP = """
name: served
seed: 0
steps:
  prompts: {{kind: prompts, source: "{source}", columns: {{prompt: sum}}}}
  answers:
    kind: generate
    model: {model}
    prompts: $prompts
    sampling: {{temperature: 1, max_tokens: 20}}
    engine: {{name: openai, served_model: tiny}}
    resources: {{base_url: "{url}", max_failed_share: {share}, retries: 1, price: {{million_prompt_tokens: 10}}}}
"""


def test_the_step_goes_on_at_another_address_and_names_what_failed(
    server: FakeServer, tiny_model: Path, tmp_path: Path
) -> None:
    from w2s_align.runs import recipe_from_text

    (tmp_path / "sums.jsonl").write_text("".join(json.dumps({"sum": prompt}) + "\n" for prompt in PROMPTS))

    def run(url: str, share: float) -> Any:
        text = STEP.format(model=tiny_model, url=url, share=share, source=tmp_path / "sums.jsonl")
        return recipe_from_text(text).run(tmp_path / "runs")

    bad = {ids(PROMPTS[4]), ids(PROMPTS[5])}
    server.fault = lambda prompt, time: (400, {}, {"error": {"message": "no"}}) if prompt in bad else None
    with pytest.raises(UserError, match=r"\d of 40 responses failed for good.*times\): HTTP 400: no"):
        run(server.url, 0.01)
    other = FakeServer()
    bad.remove(ids(PROMPTS[5]))
    other.fault = server.fault
    artifact = run(other.url, 0.05).artifact("answers")
    other.close()
    manifest = artifact.manifest
    counts = manifest["counts"]
    assert (counts["rows_in"], counts["kept"], counts["stop"], counts["error"]) == (40, 40, 39, 1)
    assert (manifest["result"]["failed"], manifest["resumed"]) == ({"HTTP 400: no": 1}, True)
    assert manifest["warnings"] == ["1 of 40 responses failed for good and have no text; most often: HTTP 400: no"]
    assert manifest["result"]["cost"] == round(manifest["result"]["prompt_tokens"] * 10 / 1e6, 6)
    again = server.asked.keys() & other.asked.keys() - {FIRST}
    assert len(other.asked) < 42 and bad <= again
    assert run(server.url, 0).artifact("answers").path == artifact.path
