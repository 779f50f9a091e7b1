"""Many replicas of vLLM on a Ray cluster: Ray places them, replaces those that die, and repeats lost work.

The driver feeds a ``ray.util.ActorPool`` as there is room and yields what comes back; each replica is an actor with a
vLLM engine in a thread. Every node needs this package with vLLM, and the model: a hub id or a shared folder.
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
from w2s_align.generation.engines import vllm
from w2s_align.generation.engines.base import Completion, Request
from w2s_align.generation.engines.installed import resolve_engine_name
from w2s_align.generation.models import ModelFiles, find_model
from w2s_align.generation.settings import Engine, EngineName, EngineResources, Sampling
from w2s_align.ray_connection import connect

RESTARTS = 5
"""How often a dead replica is replaced before the generation stops: a lost node is replaced, a crash loop is not."""
REQUESTS_PER_TASK = 8
"""Completions that come back together: more means less traffic, and more to repeat when a replica dies."""
WAIT_SECONDS = 1.0
"""Longest wait for a completion before the caller gets the chance to report."""
PATIENCE_SECONDS = 120.0
"""Time between two warnings that the replicas are not ready: loading a large model takes minutes."""
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
    """Whether its replicas were killed, so that new ones are needed."""

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
        """Generate the completions; see :meth:`.base.EngineRun.run`.

        Raises:
            UserError: A replica died again and again.
        """
        import ray
        from ray.util import ActorPool

        def submit(replica: Any, batch: list[Request]) -> Any:
            return replica.generate.remote(batch, sampling, list(stop_token_ids))

        # ActorPool gives an actor one task at a time: each replica is in the pool once per batch that it works on.
        pool: Any = ActorPool([replica for _ in range(self._tasks) for replica in self._replicas])
        source = iter(requests)
        try:
            while True:
                while pool.has_free() and (batch := list(itertools.islice(source, REQUESTS_PER_TASK))):
                    pool.submit(submit, batch)
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
                        fix="Finished responses are kept; run the same command again. Ray's logs say what killed it; "
                        "often it is too little memory.",
                    ) from error
        finally:
            if pool.has_next():
                self.close()  # nobody waits for what the replicas still generate

    def close(self) -> None:
        """Kill the replicas, and stop the cluster if it was started here."""
        import ray

        self.dead = True
        replicas, self._replicas = self._replicas, []
        for replica in replicas:
            ray.kill(replica)
        if self._started:
            self._started = False
            ray.shutdown()


class Replica:
    """One vLLM engine in a Ray actor. Ray calls :meth:`generate` many times concurrently; a thread runs the engine."""

    def __init__(self, model: str, engine: Engine, resources: EngineResources) -> None:
        self._refusal: list[dict[str, str]] | None = None
        self._incoming: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._futures: dict[int, asyncio.Future[Completion]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._serving: tuple[Sampling, list[int]] | None = None
        try:
            resolve_engine_name("vllm")
            inner = engine.model_copy(update={"name": "vllm"})
            self._engine: Any = vllm.VllmEngine(find_model(model, engine.revision), inner, resources)
        except UserError as error:
            self._refusal = error.to_json()

    async def facts(self) -> dict[str, Any]:
        """Return what the driver must know of the engine, or why it could not be started."""
        if self._refusal is not None:
            return {"refusal": self._refusal}
        names = ("dtype", "device", "context_length", "in_flight")
        return {name: getattr(self._engine, name) for name in names}

    async def generate(
        self, requests: list[Request], sampling: Sampling, stop_token_ids: list[int]
    ) -> list[Completion]:
        """Generate a batch. Ray may submit a task again: a request that is in progress is not started twice.

        Args:
            requests: The batch.
            sampling: How tokens are drawn.
            stop_token_ids: Tokens that end a completion.
        """
        self._loop = asyncio.get_running_loop()
        if self._serving != (sampling, stop_token_ids):
            self._serving = (sampling, stop_token_ids)
            self._incoming = queue.SimpleQueue()  # one per job: an old thread must not take its requests
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
                for completion in completions:
                    small = replace(  # without the prompt, which would only be sent back
                        completion,
                        request=replace(completion.request, token_ids=[]),
                        prompt_tokens=len(completion.request.token_ids),
                    )
                    self._loop.call_soon_threadsafe(self._finish, small)
        except BaseException:  # an engine that has failed cannot recover: let Ray replace the replica
            logging.getLogger(__name__).exception("The engine of a replica has failed.")
            os._exit(1)

    def _finish(self, completion: Completion) -> None:
        future = self._futures.get(completion.request.row)
        if future is not None and not future.done():
            future.set_result(completion)

    def _requests(self, incoming: queue.SimpleQueue[Request]) -> Iterator[Request | None]:
        """Yield incoming requests, or None when there is none right now, until another job is served."""
        while self._incoming is incoming:
            try:
                yield incoming.get(block=not self._futures, timeout=0.1)
            except queue.Empty:
                yield None


def _placement(replicas: int | None, spread: int) -> tuple[int, int]:
    """Return how many replicas there will be and how many GPUs each takes.

    Raises:
        UserError: The cluster has no room for them; Ray itself would wait forever.
    """
    ray: Any = importlib.import_module("ray")
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    on_gpus = any(node.get("GPU") for node in nodes)
    if spread > 1 and not on_gpus:
        raise UserError(
            f"Each replica needs {spread} GPUs, but the Ray cluster has none.",
            fix="Leave out resources.tensor_parallel_size and pipeline_parallel_size, or use a cluster with GPUs.",
        )
    thing, each = ("GPU", spread) if on_gpus else ("CPU", 1)
    room = sum(int(node.get(thing, 0)) // each for node in nodes)
    wanted = (room if on_gpus else 1) if replicas is None else replicas
    if wanted > room or not room:
        raise UserError(
            f"{max(wanted, 1)} replicas with {each} {thing}{'s' if each > 1 else ''} each do not fit into the Ray "
            "cluster.",
            why=f"It has {len(nodes)} nodes with {', '.join(str(int(node.get(thing, 0))) for node in nodes)} "
            f"{thing}s; a replica must fit into one node. There is room for {room}.",
            fix="Lower resources.replicas or resources.tensor_parallel_size, or add nodes.",
        )
    return wanted, each if on_gpus else 0


def _start(model: ModelFiles, engine: Engine, resources: EngineResources, count: int, gpus: int) -> list[Any]:
    import ray

    plain = EngineResources(**{name: getattr(resources, name) for name in EngineResources.model_fields})
    actor = ray.remote(Replica).options(num_cpus=1, num_gpus=gpus, max_restarts=RESTARTS, max_task_retries=RESTARTS)
    local = Path(model.name).expanduser()
    name = str(local.resolve()) if local.is_dir() else model.name  # the working directory of workers is another
    return [actor.remote(name, engine, plain) for _ in range(count)]


def _facts(replicas: list[Any], model: ModelFiles) -> dict[str, Any]:
    """Wait until the replicas have loaded the model, and return what the first reports of its engine."""
    import ray

    waiting = [replica.facts.remote() for replica in replicas]
    try:
        while len(ray.wait(waiting, num_returns=len(waiting), timeout=PATIENCE_SECONDS)[0]) < len(waiting):
            logging.getLogger(__name__).warning("Still waiting for Ray to place the replicas and load the model.")
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
