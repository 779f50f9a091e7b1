"""The connection to an OpenAI-compatible server: repeats a request where that may help, and else says why it failed.

Runs in an asyncio event loop. The key goes into the header of requests and nowhere else.

Not the ``openai`` client: it would replace ``_once`` and ``_pause`` alone (50 lines), and it does not say why it has
repeated a request (we report that), backs off for 8 s at most, does not repeat a broken or empty reply, and does not
hold back all other requests when one gets a Retry-After.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import aiohttp

from w2s_align.records import valid_unicode

RETRIED = frozenset({408, 409, 425, 429})
"""Statuses below 500 that mean "not now"."""
TIMEOUT_RETRIES = 2
"""Retries after a time-out, which has cost minutes; what timed out three times will not be faster."""
FIRST_PAUSE = 1.0
"""Seconds before the first retry; each further one waits twice as long."""
LONGEST_PAUSE = 60.0
"""Bound of that: eight retries then last about four minutes, which outlives the restart of a server."""
LONGEST_RETRY_AFTER = 600.0
"""Bound of what a server may ask for: it could ask for a day."""
CONNECT_SECONDS = 20.0
"""Longest wait for a connection; a server that works accepts within a second."""
IDLE_SECONDS = 3.0
"""Unused connections are closed after this: uvicorn closes them after 5 s, and a request in that moment fails."""
LOG_SECONDS = 5.0
"""Shortest time between two log lines about retries: hundreds of requests fail together."""
MESSAGE_CHARACTERS = 400
"""How much of a server's message is kept: some reply with a page of HTML or repeat the prompt."""
MOST_BYTES = 64 * 2**20
"""Bytes of a reply, decompressed: a thousand times the longest answer; a few kB of gzip can hold gigabytes."""
BROKEN = (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)
"""What reading a reply of any shape may raise; RecursionError: deeply nested brackets."""

Reply = TypeVar("Reply")
_log = logging.getLogger(__name__)


class Failed(Exception):
    """A request has failed for good.

    Attributes:
        reason: In words.
        status: HTTP status; 0 when there was none.
        retries: Why it was repeated before, once for each time.
    """

    def __init__(self, reason: str, status: int, retries: Sequence[str] = ()) -> None:
        super().__init__(reason)
        self.reason, self.status, self.retries = reason, status, tuple(retries)

    @property
    def refused(self) -> bool:
        """Whether the server refuses the request itself, as opposed to failing to handle it."""
        return 300 <= self.status < 500 and self.status not in RETRIED


class _Transient(Exception):
    """A failure that may pass."""

    def __init__(self, kind: str, text: str, status: int = 0, retry_after: float = 0.0) -> None:
        super().__init__(text)
        self.kind, self.text, self.status, self.retry_after = kind, text, status, retry_after


class _Refused(Exception):
    """A failure that will not pass."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.text, self.status = text, status


class Server:
    """One server; to be made in the event loop that uses it.

    Args:
        base_url: Address, to which ``/completions`` and the like are added.
        key: API key, if the server needs one.
        connections: Largest number of concurrent connections.
        retries: Largest number of retries of a request.
    """

    def __init__(self, base_url: str, key: str | None, connections: int, retries: int) -> None:
        self.base_url = base_url
        self._key, self._retries = key, retries
        self._open_at = self._logged_at = 0.0
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            connector=aiohttp.TCPConnector(limit=connections, keepalive_timeout=IDLE_SECONDS),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def get(self, path: str, seconds: float) -> Any:
        """Return the JSON at a path, without retries.

        Args:
            path: Below ``base_url``.
            seconds: Time limit.

        Raises:
            Failed: There is none.
        """
        try:
            return await self._once("GET", path, None, lambda reply: reply, seconds)
        except (_Transient, _Refused) as error:
            raise Failed(error.text, error.status) from None

    async def post(
        self, path: str, body: Mapping[str, Any], read: Callable[[Any], Reply], seconds: float
    ) -> tuple[Reply, tuple[str, ...]]:
        """Return the server's reply, and the reasons of all retries.

        Args:
            path: Below ``base_url``.
            body: Sent as JSON.
            read: Makes the result from the reply's JSON. An error of :data:`BROKEN` from it means that the reply is
                broken, and the request is repeated.
            seconds: Time limit of one try.

        Raises:
            Failed: The server refuses the request, or all retries have failed.
        """
        retries: list[str] = []
        while True:
            await self._until_open()
            try:
                return await self._once("POST", path, body, read, seconds), tuple(retries)
            except _Refused as refusal:
                raise Failed(refusal.text, refusal.status, retries) from None
            except _Transient as failure:
                timed_out = failure.kind == "time-out" and retries.count("time-out") >= TIMEOUT_RETRIES
                if timed_out or len(retries) >= self._retries:
                    tries = f" (tried {len(retries) + 1} times)" if retries else ""
                    raise Failed(failure.text + tries, failure.status, retries) from None
                retries.append(failure.kind)
                await self._pause(failure, len(retries))

    async def _once(
        self, method: str, path: str, body: Mapping[str, Any] | None, read: Callable[[Any], Reply], seconds: float
    ) -> Reply:
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS)
        try:
            async with self._session.request(
                method, self.base_url + path, json=body, timeout=timeout, allow_redirects=False
            ) as reply:
                data, status, headers = await _read(reply), reply.status, reply.headers
        except TimeoutError as error:  # before ClientError: time-outs of aiohttp are both
            if isinstance(error, aiohttp.ConnectionTimeoutError):
                raise _Transient("connection", "The server could not be reached in time.") from None
            raise _Transient("time-out", f"The server did not reply within {seconds:g} s.") from None
        except aiohttp.ClientError as error:
            raise _Transient("connection", self._clean(f"The connection failed: {error}")) from None
        if status in RETRIED or status >= 500:
            wait = _seconds_to_wait(headers.get("Retry-After"))
            raise _Transient(f"HTTP {status}", f"HTTP {status}: {self._message(data)}", status, wait)
        if status != 200:
            raise _Refused(f"HTTP {status}: {self._message(data)}", status)
        try:
            return read(json.loads(data))
        except BROKEN as error:
            shown = self._clean(data[:80].decode(errors="replace"))
            reason = self._clean(f"{type(error).__name__}: {error}")
            raise _Transient("broken reply", f"The reply is broken ({reason}): {shown!r}") from None

    async def _until_open(self) -> None:
        while (wait := self._open_at - time.monotonic()) > 0:
            await asyncio.sleep(wait + random.uniform(0, 0.5))  # jitter: not all requests at the same moment

    async def _pause(self, failure: _Transient, tries: int) -> None:
        """Wait before the next try: exponential backoff with jitter. A Retry-After holds for all requests."""
        now = time.monotonic()
        self._open_at = max(self._open_at, now + failure.retry_after)
        pause = min(FIRST_PAUSE * 2 ** (tries - 1), LONGEST_PAUSE) * random.uniform(0.5, 1.0)
        if now - self._logged_at > LOG_SECONDS:
            self._logged_at = now
            _log.warning("%s  Retrying in %.1f s.", failure.text, max(pause, failure.retry_after))
        await asyncio.sleep(pause)

    def _message(self, data: bytes) -> str:
        """Find the message in an error's body: OpenAI and vLLM ``error.message``, others ``message`` or ``detail``."""
        text = data.decode(errors="replace")
        try:
            found = json.loads(text)
            found = found.get("error", found) if isinstance(found, dict) else found
            if isinstance(found, dict):
                found = found.get("message") or found.get("detail") or found
            return self._clean(found if isinstance(found, str) else json.dumps(found))
        except BROKEN:
            return self._clean(text)

    def _clean(self, text: str) -> str:
        """Shorten a server's message, and remove the key, which some servers repeat."""
        text = text.replace(self._key, "***") if self._key else text
        text = valid_unicode(" ".join(text.split()))
        return text if len(text) <= MESSAGE_CHARACTERS else text[:MESSAGE_CHARACTERS] + " ..."


async def _read(reply: aiohttp.ClientResponse) -> bytes:
    """Return the decompressed body.

    Raises:
        _Refused: It is larger than :data:`MOST_BYTES`.
    """
    data = bytearray()
    async for chunk in reply.content.iter_any():
        data += chunk
        if len(data) > MOST_BYTES:
            raise _Refused(f"The reply is longer than {MOST_BYTES // 2**20} MiB.", reply.status)
    return bytes(data)


def _seconds_to_wait(retry_after: str | None) -> float:
    """Read a Retry-After header: seconds, or a date (RFC 9110, section 10.2.3)."""
    if retry_after is None:
        return 0.0
    try:
        wait = float(retry_after)
    except ValueError:
        try:
            wait = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return min(max(wait, 0.0), LONGEST_RETRY_AFTER) if wait == wait else 0.0  # not for NaN, which is no time
