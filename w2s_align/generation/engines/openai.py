"""Any OpenAI-compatible server (``vllm serve`` and others): many requests at a time, one for each answer.

Prompts go to ``/completions`` as the token ids that were rendered and checked here, or, where no tokenizer is at hand
(``engine.api: chat``), to ``/chat/completions`` as messages. Before the first one, the address, the key, the model and
every field of a request are tried, so that what cannot work is one error and not a thousand failed answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import queue
import re
import threading
from collections.abc import Coroutine, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from w2s_align.errors import UserError, did_you_mean
from w2s_align.generation.engines.base import Completion, Request
from w2s_align.generation.engines.openai_schema import Violation, read_completion, request_fields, sampling_fields
from w2s_align.generation.engines.server import Failed, Server
from w2s_align.generation.models import ModelFiles
from w2s_align.generation.settings import (
    SERVER_FIELDS,
    Engine,
    EngineName,
    EngineResources,
    Sampling,
    server_address,
)

LIST_SECONDS = 30.0
YIELD_SECONDS = 0.25
"""Longest wait before the caller gets the chance to report."""
TRIED_TOKENS = 16
LOST_IN_A_ROW = 100
"""So many answers lost one after the other, or as many as are asked for at a time, mean that the server is broken."""
MIN_TIMEOUT, TIMEOUT_PER_TOKEN = 600.0, 0.25
ONLY_SOME_KNOW = ("top_k", "min_p", "repetition_penalty", "stop_token_ids")

Result = TypeVar("Result")


class OpenAIEngine:
    """A server; see :class:`~.base.EngineRun`.

    Raises:
        UserError: There is no address or key, no server at the address, or it does not take the key, or not serve the
            model.
    """

    name: EngineName = "openai"
    dtype = "unknown"
    devices = 0

    def __init__(self, model: ModelFiles, engine: Engine, resources: EngineResources) -> None:
        self._engine, self._resources = engine, resources
        self._url, key = server_address(resources), _key(resources.api_key_env)
        self._path = "/chat/completions" if engine.api == "chat" else "/completions"
        self._loop = asyncio.new_event_loop()
        # In a thread of its own: in a notebook, a loop runs in the main one already.
        self._thread = threading.Thread(target=self._loop.run_forever, name="w2s-openai", daemon=True)
        self._thread.start()
        self._server = self._wait(_connect(self._url, key, resources))
        try:
            self._served = engine.served_model or model.name
            self._served, card = self._find(self._served)
            context = card.get("max_model_len") or model.text_config.get("max_position_embeddings")
            lengths = [length for length in (context, engine.max_model_len) if isinstance(length, int)]
            self.context_length = min(lengths, default=None)
            self.device = self._url + (self._wait(_vllm_version(self._url)) if card.get("owned_by") == "vllm" else "")
        except BaseException:
            self.close()
            raise

    def run(
        self, requests: Iterable[Request], sampling: Sampling, stop_token_ids: Sequence[int]
    ) -> Generator[list[Completion], None, None]:
        """Answer the requests; see :meth:`.base.EngineRun.run`."""
        source = iter(requests)
        first = next(source, None)
        if first is None:
            return
        seconds = self._resources.request_timeout or max(MIN_TIMEOUT, TIMEOUT_PER_TOKEN * sampling.max_tokens)
        job = _Job(sampling, sampling_fields(sampling, stop_token_ids, self._engine), seconds)
        self._wait(self._try_out(first, job))
        source = itertools.chain([first], source)
        finished: queue.SimpleQueue[Future[Completion]] = queue.SimpleQueue()
        pending: set[Future[Completion]] = set()
        try:
            while True:
                for request in itertools.islice(source, self._resources.concurrency - len(pending)):
                    future = asyncio.run_coroutine_threadsafe(self._answer(request, job), self._loop)
                    pending.add(future)
                    future.add_done_callback(finished.put)
                if not pending:
                    return
                ready = _take(finished)
                pending.difference_update(ready)
                yield [future.result() for future in ready if future.exception() is None]
                for future in ready:
                    future.result()  # raises what ends the job, now that the finished ones are safe
        finally:
            for future in pending:
                future.cancel()

    def close(self) -> None:
        """Close the connections and end the thread."""
        if self._loop.is_closed():
            return
        self._wait(_disconnect(self._server))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _find(self, name: str) -> tuple[str, Mapping[str, Any]]:
        """Return the server's name for the model, and what it says about it."""
        try:
            listed = self._wait(self._server.get("/models", LIST_SECONDS))
            cards = {str(card["id"]): card for card in listed["data"]}
        except Failed as error:
            if error.status in (404, 405):  # some servers list nothing; then the first request has to tell
                return name, {}
            raise self._explained(error) from error
        except (LookupError, TypeError):
            return name, {}
        served = next((i for i, card in cards.items() if name == i or _same_folder(name, card.get("root"))), None)
        if served is None:
            raise UserError(
                f"The server at {self._url} does not serve {name}.",
                why=f"It serves: {', '.join(cards) or 'nothing'}.",
                fix=f"{did_you_mean(name, cards)} Set engine.served_model to the server's name for the model.",
            )
        return served, cards[served]

    async def _try_out(self, request: Request, job: _Job) -> None:
        """Make one short request with every field, to hear what the server refuses before the first answer."""
        limit = min(TRIED_TOKENS, job.sampling.max_tokens)
        if self._engine.api == "chat":
            tried = Request(-1, [], request.seed, [{"role": "user", "content": "Hi"}])
        else:
            tried = Request(-1, request.token_ids[:1], request.seed)
        try:
            await self._ask(tried, job, limit)
        except Failed as error:
            raise self._explained(error) from error
        except Violation as error:
            raise UserError(
                str(error),
                why="A short request was tried before the first prompt.",
                fix="Check that the server is OpenAI-compatible, and its names for the fields (engine.server_fields).",
            ) from error

    async def _ask(self, request: Request, job: _Job, limit: int) -> Completion:
        fields = {"model": self._served, "stream": False, **job.fields}
        if self._engine.api == "chat" and self._engine.chat_template_kwargs:
            fields["chat_template_kwargs"] = self._engine.chat_template_kwargs
        answer, retries = await self._server.post(
            self._path,
            {**fields, **request_fields(request, limit, self._engine)},
            lambda reply: read_completion(reply, request, limit, job.sampling.logprobs),
            job.seconds,
        )
        return replace(answer, retries=retries)

    async def _answer(self, request: Request, job: _Job) -> Completion:
        limit = job.sampling.max_tokens
        if self.context_length is not None:  # servers refuse what offline engines cut at the context's end
            limit = max(1, min(limit, self.context_length - len(request.token_ids)))
        try:
            answer = await self._ask(request, job, limit)
        except Failed as error:
            await self._check_alive(error, job)
            return Completion(request, None, "error", 0, error=error.reason, retries=error.retries)
        except Violation as error:
            return Completion(request, None, "error", 0, error=str(error))
        job.lost_in_a_row = 0
        return answer

    async def _check_alive(self, error: Failed, job: _Job) -> None:
        """Tell a lost answer from a lost server.

        Raises:
            UserError: The server does not take the key any more, is gone, or loses every answer.
        """
        if error.status in (401, 403):
            raise self._explained(error)
        if error.refused:
            return
        job.lost_in_a_row += 1
        broken = job.lost_in_a_row >= max(LOST_IN_A_ROW, self._resources.concurrency)
        if not broken and await self._is_there():
            return
        raise UserError(
            f"The server at {self._url} does not answer any more.",
            why=f"{job.lost_in_a_row} answers were lost one after the other; the last: {error.reason}",
            fix="What is finished is kept. See to the server and run the same command again: it goes on from there.",
        )

    async def _is_there(self) -> bool:
        try:
            await self._server.get("/models", LIST_SECONDS)
        except Failed as error:
            return error.refused
        return True

    def _explained(self, error: Failed) -> UserError:
        """Say what a failed first contact means, and the way out."""
        name = self._resources.api_key_env
        what = f"No usable answer from the server at {self._url}."
        fix = "Check resources.base_url and that the server runs (e.g. vllm serve MODEL), then try again."
        if error.status in (401, 403):
            what = f"The server at {self._url} does not take {'the API key' if name else 'requests without a key'}."
            fix = "Set resources.api_key_env to the name of the environment variable that holds the API key."
            if name is not None:
                fix = f"Check the environment variable {name}."
        elif error.status == 404:
            what = f"The server at {self._url} has no {self._path}, or not for the model {self._served}."
            fix = "Check resources.base_url (for most servers it ends with /v1) and engine.served_model."
        elif error.refused:
            what, fix = self._refusal(error.reason)
        return UserError(what, why=error.reason, fix=fix)

    def _refusal(self, reason: str) -> tuple[str, str]:
        known = {self._engine.server_fields.get(field, field): field for field in SERVER_FIELDS}
        fields = [field for name, field in known.items() if name and re.search(rf"\b{name}\b", reason)]
        if not fields:
            fix = "If it does not take token ids, set engine.api: chat; for single fields see engine.server_fields."
            return f"The server at {self._url} refuses a request.", fix
        field = max(fields, key=len)  # "n" and "stop" are words, too
        off = "{max_tokens: max_completion_tokens}" if field == "max_tokens" else f"{{{field}: null}}"
        rest = ", ".join(f"{other}: null" for other in ONLY_SOME_KNOW)
        return (
            f"The server at {self._url} does not take the field {field} as it is sent.",
            f"Set engine.server_fields: {off}; where only OpenAI's own fields are known: {{{rest}}}.",
        )


@dataclass
class _Job:
    """What all requests of one :meth:`OpenAIEngine.run` share."""

    sampling: Sampling
    fields: Mapping[str, Any]
    seconds: float
    lost_in_a_row: int = 0


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        raise UserError(
            f"The environment variable {variable} with the API key is not set.",
            fix=f"export {variable}=..., or correct resources.api_key_env.",
        )
    return key


async def _connect(url: str, key: str | None, resources: EngineResources) -> Server:
    return Server(url, key, resources.concurrency, resources.retries)


async def _disconnect(server: Server) -> None:
    """Let what was given up come to its end, then close."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await server.close()


async def _vllm_version(url: str) -> str:
    """Return ``(vllm 0.32.0)``: vLLM tells its version beside its API."""
    parts = urlsplit(url)
    root = Server(f"{parts.scheme}://{parts.netloc}", None, 1, 0)
    try:
        return f" (vllm {(await root.get('/version', LIST_SECONDS))['version']})"
    except (Failed, LookupError, TypeError):
        return ""
    finally:
        await root.close()


def _same_folder(name: str, root: Any) -> bool:
    """Whether a server's model is the local folder that a model is called by."""
    return isinstance(root, str) and (root == name or Path(root).resolve() == Path(name).expanduser().resolve())


def _take(finished: queue.SimpleQueue[Future[Completion]]) -> list[Future[Completion]]:
    ready: list[Future[Completion]] = []
    with contextlib.suppress(queue.Empty):
        ready.append(finished.get(timeout=YIELD_SECONDS))
        while True:
            ready.append(finished.get_nowait())
    return ready
