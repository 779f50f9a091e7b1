"""Many replicas of vLLM on a Ray cluster: Ray places them, replaces those that die, and asks lost work again.

The driver feeds a ``ray.util.ActorPool`` as there is room and hands on what comes back; each replica is an actor with
a vLLM engine in a thread. Every node needs this package with vLLM, and the model: a hub id or a folder that all see.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import logging
import os
import queue
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from w2s_align.errors import UserError
from w2s_align.generation.engines import engine_cache
from w2s_align.generation.engines.base import Completion, Request
from w2s_align.generation.models import ModelFiles, find_model
from w2s_align.generation.settings import Engine, EngineName, EngineResources, Sampling
from w2s_align.ray_connection import connect

RESTARTS = 5
"""How often one replica may die and be replaced before the generation stops."""
REQUESTS_PER_TASK = 8
"""Answers that come back together: more means less traffic, and more to do again when a replica dies."""
WAIT_SECONDS = 1.0
PATIENCE_SECONDS = 120.0
ADDRESS_FIX = (
    "Check resources.ray_address (host:port of the head node, or auto), or leave it out to start a cluster on this "
    "machine."
)


class RayEngine:
    """Replicas of vLLM on a Ray cluster; see :class:`~.base.EngineRun`.

    Raises:
        UserError: There is no such cluster, it has too few devices, or a replica cannot load the model.
    """

    name: EngineName = "ray"
    dead = False
    """Whether its replicas were ended, so that others are needed."""

    def __init__(self, model: ModelFiles, engine: Engine, resources: EngineResources) -> None:
        self._started = connect(resources.ray_address, ADDRESS_FIX)
        spread = resources.tensor_parallel_size * resources.pipeline_parallel_size
        self._replicas: list[Any] = []
        try:
            count, gpus = _placement(resources.replicas, spread)
            self._replicas = _start(model, engine, resources, count, gpus)
            facts = _facts(self._replicas, model)
        except BaseException:
            self.close()
            raise
        self.dtype: str = facts["dtype"]
        self.device: str = facts["device"]
        self.context_length: int | None = facts["context_length"]
        self.devices = count * gpus
        self._tasks = max(1, facts["in_flight"] // REQUESTS_PER_TASK)

    def run(
        self, requests: Iterable[Request], sampling: Sampling, stop_token_ids: Sequence[int]
    ) -> Generator[list[Completion], None, None]:
        """Answer the requests; see :meth:`.base.EngineRun.run`."""
        import ray
        from ray.util import ActorPool

        def ask(replica: Any, batch: list[Request]) -> Any:
            return replica.answer.remote(batch, sampling, list(stop_token_ids))

        # A replica stands in the pool once for each batch that it works on at the same time.
        pool: Any = ActorPool([replica for _ in range(self._tasks) for replica in self._replicas])
        source = iter(requests)
        try:
            while True:
                while pool.has_free() and (batch := list(itertools.islice(source, REQUESTS_PER_TASK))):
                    pool.submit(ask, batch)
                if not pool.has_next():
                    return
                try:
                    yield pool.get_next_unordered(timeout=WAIT_SECONDS)
                except TimeoutError:
                    yield []  # lets the caller report that nothing came
                except ray.exceptions.RayActorError as error:
                    raise UserError(
                        f"A replica of the model died, and again after each of {RESTARTS} replacements.",
                        why=str(error).strip().splitlines()[0],
                        fix="Finished answers are kept; run the same command again. Ray's logs say what killed it, "
                        "often too little memory.",
                    ) from error
        finally:
            if pool.has_next():
                self.close()  # nobody waits for what the replicas still write

    def close(self) -> None:
        """End the replicas, and the cluster if it was started here."""
        import ray

        self.dead = True
        replicas, self._replicas = self._replicas, []
        for replica in replicas:
            ray.kill(replica)
        if self._started:
            self._started = False
            ray.shutdown()


class Replica:
    """One vLLM engine inside a Ray actor. Ray calls :meth:`answer` many times at once; a thread runs the engine."""

    def __init__(self, model: str, engine: Engine, resources: EngineResources) -> None:
        self._refusal: list[dict[str, str]] | None = None
        self._incoming: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._futures: dict[int, asyncio.Future[Completion]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._serving: tuple[Sampling, list[int]] | None = None
        try:
            inner = engine.model_copy(update={"name": "vllm"})
            self._engine: Any = engine_cache.open_engine(find_model(model, engine.revision), inner, resources)
        except UserError as error:
            self._refusal = error.to_json()

    async def facts(self) -> dict[str, Any]:
        """Return what the driver must know of the engine, or why there is none."""
        if self._refusal is not None:
            return {"refusal": self._refusal}
        names = ("dtype", "device", "context_length", "in_flight")
        return {name: getattr(self._engine, name) for name in names}

    async def answer(self, requests: list[Request], sampling: Sampling, stop_token_ids: list[int]) -> list[Completion]:
        """Answer a batch; a request that is being answered already (Ray asked again) is not begun twice."""
        self._loop = asyncio.get_running_loop()
        if self._serving != (sampling, stop_token_ids):
            self._serving = (sampling, stop_token_ids)
            self._incoming = queue.SimpleQueue()  # one for each job: an old thread must not take its requests
            thread = threading.Thread(target=self._serve, args=(*self._serving, self._incoming), daemon=True)
            thread.start()
        futures = []
        for request in requests:
            if request.row not in self._futures:
                self._futures[request.row] = self._loop.create_future()
                self._incoming.put(request)
            futures.append(self._futures[request.row])
        try:
            return list(await asyncio.gather(*futures))
        finally:
            for request in requests:
                self._futures.pop(request.row, None)

    def _serve(self, sampling: Sampling, stop_token_ids: list[int], incoming: queue.SimpleQueue[Request]) -> None:
        assert self._loop is not None
        try:
            for completions in self._engine.run(self._requests(incoming), sampling, stop_token_ids):
                for done in completions:
                    small = replace(
                        done,
                        request=replace(done.request, token_ids=[]),
                        prompt_tokens=len(done.request.token_ids),
                    )
                    self._loop.call_soon_threadsafe(self._finish, small)
        except BaseException:  # an engine that has failed is of no use: let Ray replace the replica
            logging.getLogger(__name__).exception("The engine of a replica has failed.")
            os._exit(1)

    def _finish(self, done: Completion) -> None:
        future = self._futures.get(done.request.row)
        if future is not None and not future.done():
            future.set_result(done)

    def _requests(self, incoming: queue.SimpleQueue[Request]) -> Iterator[Request | None]:
        """Yield what comes in, or None when there is nothing right now, until another job is served."""
        while self._incoming is incoming:
            try:
                yield incoming.get(block=not self._futures, timeout=0.1)
            except queue.Empty:
                yield None


def _placement(replicas: int | None, spread: int) -> tuple[int, int]:
    """Return how many replicas there will be and how many GPUs each takes.

    Raises:
        UserError: The cluster cannot hold them: Ray would wait for ever.
    """
    ray: Any = importlib.import_module("ray")
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    on_gpus = any(node.get("GPU") for node in nodes)
    if spread > 1 and not on_gpus:
        raise UserError(
            f"Each replica is to be spread over {spread} GPUs, but the Ray cluster has none.",
            fix="Leave resources.tensor_parallel_size and pipeline_parallel_size out, or use a cluster with GPUs.",
        )
    thing, each = ("GPU", spread) if on_gpus else ("CPU", 1)
    room = sum(int(node.get(thing, 0)) // each for node in nodes)
    wanted = (room if on_gpus else 1) if replicas is None else replicas
    if wanted > room or not room:
        raise UserError(
            f"{max(wanted, 1)} replicas with {each} {thing}{'s' if each > 1 else ''} each do not fit into the Ray "
            "cluster.",
            why=f"It has {len(nodes)} nodes with {', '.join(str(int(node.get(thing, 0))) for node in nodes)} "
            f"{thing}s; a replica does not cross nodes. There is room for {room}.",
            fix="Lower resources.replicas or resources.tensor_parallel_size, or add nodes.",
        )
    return wanted, each if on_gpus else 0


def _start(model: ModelFiles, engine: Engine, resources: EngineResources, count: int, gpus: int) -> list[Any]:
    import ray

    plain = EngineResources(**{name: getattr(resources, name) for name in EngineResources.model_fields})
    actor = ray.remote(Replica).options(num_cpus=1, num_gpus=gpus, max_restarts=RESTARTS, max_task_retries=RESTARTS)
    local = Path(model.name).expanduser()
    name = str(local.resolve()) if local.is_dir() else model.name  # workers need not stand in the same folder
    return [actor.remote(name, engine, plain) for _ in range(count)]


def _facts(replicas: list[Any], model: ModelFiles) -> dict[str, Any]:
    """Wait for the replicas to load the model, and return what the first says of its engine."""
    import ray

    waiting = [replica.facts.remote() for replica in replicas]
    try:
        while len(ray.wait(waiting, num_returns=len(waiting), timeout=PATIENCE_SECONDS)[0]) < len(waiting):
            logging.getLogger(__name__).warning("Still waiting for Ray to place and load the replicas.")
        found: list[dict[str, Any]] = ray.get(waiting)
    except ray.exceptions.RayError as error:
        raise UserError(
            f"A replica of {model.name} could not start.",
            why=str(error).strip().splitlines()[-1],
            fix="w2s-align and vllm must be installed on every node of the cluster, in the same versions.",
        ) from error
    for facts in found:
        if "refusal" in facts:
            raise UserError.from_json(facts["refusal"])
    return found[0]
