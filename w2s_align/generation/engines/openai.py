"""Any OpenAI-compatible server (``vllm serve`` and others): many concurrent requests, one for each response.

Prompts go to ``/completions`` as the token ids that were rendered and checked here, or, without a local tokenizer
(``engine.api: chat``), to ``/chat/completions`` as messages. Before the first one, the address, the key, the model and
every field of a request are tried, so that what cannot work is one error and not a thousand failed responses.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import queue
import threading
from collections.abc import Coroutine, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from w2s_align.errors import UserError, did_you_mean
from w2s_align.generation.engines.base import Completion, Request
from w2s_align.generation.engines.openai_errors import ServerErrors, api_key
from w2s_align.generation.engines.openai_schema import Violation, read_completion, request_fields, sampling_fields
from w2s_align.generation.engines.server import Failed, Server
from w2s_align.generation.models import ModelFiles
from w2s_align.generation.settings import Engine, EngineName, EngineResources, Sampling, server_address
from w2s_align.records import valid_unicode

LIST_SECONDS = 30.0
"""Time limit for the list of models and the version, which a busy server may take seconds to return."""
YIELD_SECONDS = 0.25
"""Longest wait before the caller gets the chance to report."""
TRIAL_TOKENS = 16
"""Length of the trial completion: some servers refuse fewer."""
FAILED_IN_A_ROW = 100
"""So many failures in a row, or as many as are requested concurrently, mean that the server is broken."""
MIN_TIMEOUT, TIMEOUT_PER_TOKEN = 600.0, 0.25
"""Default time limit in seconds: 0.25 per token is slower than any server that is of use, with its queue."""

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
        self._url, key = server_address(resources), api_key(resources.api_key_env)
        self._path = "/chat/completions" if engine.api == "chat" else "/completions"
        self._loop = asyncio.new_event_loop()
        # In a thread of its own: in a notebook, the main thread already runs a loop.
        self._thread = threading.Thread(target=self._loop.run_forever, name="w2s-openai", daemon=True)
        self._thread.start()
        self._server = self._wait(_connect(self._url, key, resources))
        self._served = engine.served_model or model.name
        self._errors = ServerErrors(self._url, self._path, self._served, engine, resources)
        try:
            self._served, card = self._find(self._served)
            self._errors = replace(self._errors, model=self._served)
            context = card.get("max_model_len") or model.text_config.get("max_position_embeddings")
            # not 0, -1 or true, which a server may report
            known = (length for length in (context, engine.max_model_len) if type(length) is int)
            lengths = [length for length in known if length > 1]
            self.context_length = min(lengths, default=None)
            self.device = self._url + (self._wait(_vllm_version(self._url)) if card.get("owned_by") == "vllm" else "")
        except BaseException:
            self.close()
            raise

    def run(
        self, requests: Iterable[Request], sampling: Sampling, stop_token_ids: Sequence[int]
    ) -> Generator[list[Completion], None, None]:
        """Generate the completions; see :meth:`.base.EngineRun.run`."""
        source = iter(requests)
        first = next(source, None)
        if first is None:
            return
        seconds = self._resources.request_timeout or max(MIN_TIMEOUT, TIMEOUT_PER_TOKEN * sampling.max_tokens)
        job = _Job(sampling, sampling_fields(sampling, stop_token_ids, self._engine), seconds)
        self._wait(self._send_trial(first, job))
        source = itertools.chain([first], source)
        finished: queue.SimpleQueue[Future[Completion]] = queue.SimpleQueue()
        pending: set[Future[Completion]] = set()
        try:
            while True:
                for request in itertools.islice(source, self._resources.concurrency - len(pending)):
                    future = asyncio.run_coroutine_threadsafe(self._complete(request, job), self._loop)
                    pending.add(future)
                    future.add_done_callback(finished.put)
                if not pending:
                    return
                ready = _wait_for_some(finished)
                pending.difference_update(ready)
                yield [future.result() for future in ready if future.exception() is None]
                for future in ready:
                    future.result()  # raises what ends the job, now that the finished ones are written
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
        """Return the server's name for the model, and its entry in the list of models."""
        try:
            listed = self._wait(self._server.get("/models", LIST_SECONDS))
            cards = {valid_unicode(str(card["id"])): card for card in listed["data"] if isinstance(card, dict)}
        except Failed as error:
            if error.status in (404, 405):  # some servers have no list; then the first request shows whether it works
                return name, {}
            raise self._errors.explain(error) from error
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

    async def _send_trial(self, request: Request, job: _Job) -> None:
        """Send one short request with every field, to learn what the server refuses before the first prompt."""
        limit = min(TRIAL_TOKENS, job.sampling.max_tokens)
        if self._engine.api == "chat":
            trial = Request(-1, [], request.seed, [{"role": "user", "content": "Hi"}])
        else:
            trial = Request(-1, request.token_ids[:1], request.seed)
        try:
            await self._request(trial, job, limit)
        except Failed as error:
            raise self._errors.explain(error) from error
        except Violation as error:
            raise UserError(
                str(error),
                why="This was a short trial request, sent before the first prompt.",
                fix="Check that the server is OpenAI-compatible, and its names for the fields (engine.server_fields).",
            ) from error

    async def _request(self, request: Request, job: _Job, limit: int) -> Completion:
        fields = {"model": self._served, "stream": False, **job.fields}
        if self._engine.api == "chat" and self._engine.chat_template_kwargs:
            fields["chat_template_kwargs"] = self._engine.chat_template_kwargs
        completion, retries = await self._server.post(
            self._path,
            {**fields, **request_fields(request, limit, self._engine)},
            lambda reply: read_completion(reply, request, limit, job.sampling.logprobs),
            job.seconds,
        )
        return replace(completion, retries=retries)

    async def _complete(self, request: Request, job: _Job) -> Completion:
        limit = job.sampling.max_tokens
        # Servers refuse a request whose prompt and max_tokens exceed the context; offline engines stop at its end.
        if self.context_length is not None:
            limit = max(1, min(limit, self.context_length - len(request.token_ids)))
        try:
            completion = await self._request(request, job, limit)
        except Failed as error:
            await self._check_alive(error, job)
            return Completion(request, None, "error", 0, error=error.reason, retries=error.retries)
        except Violation as error:
            return Completion(request, None, "error", 0, error=str(error))
        job.failed_in_a_row = 0
        return completion

    async def _check_alive(self, error: Failed, job: _Job) -> None:
        """Tell a failed request from a failed server.

        Raises:
            UserError: The server refuses the key now, is gone, or fails every request.
        """
        if error.status in (401, 403):
            raise self._errors.explain(error)
        if error.refused:
            return
        job.failed_in_a_row += 1
        broken = job.failed_in_a_row >= max(FAILED_IN_A_ROW, self._resources.concurrency)
        if not broken and await self._is_there():
            return
        raise UserError(
            f"The server at {self._url} stopped responding.",
            why=f"{job.failed_in_a_row} requests in a row failed; the last: {error.reason}",
            fix="Finished responses are kept. Check the server and run the same command again; it resumes.",
        )

    async def _is_there(self) -> bool:
        try:
            await self._server.get("/models", LIST_SECONDS)
        except Failed as error:
            return error.refused
        return True


@dataclass
class _Job:
    """What all requests of one :meth:`OpenAIEngine.run` share."""

    sampling: Sampling
    fields: Mapping[str, Any]
    seconds: float
    failed_in_a_row: int = 0


async def _connect(url: str, key: str | None, resources: EngineResources) -> Server:
    return Server(url, key, resources.concurrency, resources.retries)


async def _disconnect(server: Server) -> None:
    """Cancel what is unfinished, wait for it, then close."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await server.close()


async def _vllm_version(url: str) -> str:
    """Return e.g. ``(vllm 0.32.0)``: vLLM serves its version outside of the API."""
    parts = urlsplit(url)
    root = Server(f"{parts.scheme}://{parts.netloc}", None, 1, 0)
    try:
        version = (await root.get("/version", LIST_SECONDS))["version"]
        return f" (vllm {valid_unicode(version)[:40]})"
    except (Failed, LookupError, TypeError):
        return ""
    finally:
        await root.close()


def _same_folder(name: str, root: Any) -> bool:
    """Return whether a server's model is the local folder by which the model is named."""
    try:
        return isinstance(root, str) and (root == name or Path(root).resolve() == Path(name).expanduser().resolve())
    except (OSError, ValueError):  # no path: it holds NUL, or is too long
        return False


def _wait_for_some(finished: queue.SimpleQueue[Future[Completion]]) -> list[Future[Completion]]:
    ready: list[Future[Completion]] = []
    with contextlib.suppress(queue.Empty):
        ready.append(finished.get(timeout=YIELD_SECONDS))
        while True:
            ready.append(finished.get_nowait())
    return ready
