"""The vLLM engine: completions written by a vLLM server, which is given the weights whenever they have changed."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from torch import nn

from outlay.catalog import Paper
from outlay.context import Context
from outlay.errors import InputError
from outlay.rollout.base import Completion, Ended, Leave, LogitsHook, Request, Sampling, Work, check_counts, sample_stream
from outlay.rollout.handing import ByAdapter, ByFolder, Handing, check_handing, weights_mark
from outlay.rollout.serving import Server, ServerError
from outlay.schedules.base import require


@dataclass(frozen=True)
class Vllm:
    """Write completions with a vLLM server, one request a sample with the seed of the sample's own stream, ``parallel`` of them at a time.

    It follows the HTTP interface of vLLM 0.10.2 and later: ``/v1/completions`` with tokens in and out (``return_token_ids``), and for the
    weights

    - ``weights: folder``: all of them are written into ``folder`` and read again (``/collective_rpc`` reload_weights, then
      ``/reset_prefix_cache``). Start the server with ``VLLM_SERVER_DEV_MODE=1 vllm serve FOLDER``, where FOLDER holds a model of the same shape.
    - ``weights: lora``: the adapter is written into a folder of its own below ``folder`` and loaded under a new name
      (``/v1/load_lora_adapter``); the one before is unloaded. Start the server with
      ``VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve BASE --enable-lora --max-lora-rank RANK``.

    Weights are handed over before a generation when a bit of them has changed. The server computes in its own precision: its log-probabilities
    are those of what it computed, and differ in the last digits from the model's here.

    What is charged is what was written: a sample begins when there is leave for the most that it and all which are under way may take, and is
    charged when it is there, in the order of samples. A prompt counts once for all its samples, as the server's prefix cache has it. What a try
    that failed had cost the server is not known and not charged. At the end of a budget up to ``parallel`` samples are not begun that might
    have fitted, had they turned out short.

    Args:
        folder: where weights are handed over; the server must see it under the same path (``lora``) or be started from it (``folder``).
        weights: the way.
        address: of the server.
        parallel: requests under way at most, > 0.
        logprobs: what the server was started with as ``--logprobs-mode``: ``raw`` (vLLM's default) tells log-probabilities of temperature 1,
            and serves temperatures 0 and 1; ``processed`` tells those that were sampled from, and serves every temperature without ``top_p``
            and ``top_k``.
        timeout: seconds without an answer after which a request has failed, > 0. The longest completion must be written in it.
        retries: how often a request that failed is tried again, >= 0.
        wait: seconds before the first time, twice as long before each further one, >= 0.
    """

    title: ClassVar[str] = "Rollouts by a vLLM server"
    paper: ClassVar[Paper | None] = Paper(
        "2309.06180", "Efficient Memory Management for Large Language Model Serving with PagedAttention", 2023
    )

    folder: Path
    weights: Literal["folder", "lora"] = "folder"
    address: str = "http://localhost:8000"
    parallel: int = 64
    logprobs: Literal["raw", "processed"] = "raw"
    timeout: float = 600.0
    retries: int = 3
    wait: float = 1.0

    def __post_init__(self) -> None:
        require(self.parallel > 0, f"parallel must be > 0, found {self.parallel}")
        self._server()

    def _server(self) -> Server:
        return Server(self.address.rstrip("/"), self.timeout, self.retries, self.wait)

    def open(self, model: nn.Module, context: Context) -> VllmGenerator:
        """Return a generator for a model of transformers, bare or with adapters of peft.

        Raises:
            InputError: when no server answers, the weights cannot be handed over so, or several processes share the run.
        """
        if context.world > 1:
            raise InputError(f"rollout/vllm serves a run of one process, found {context.world}")
        check_handing(model, self.weights, self.folder)
        server = self._server()
        try:
            name, longest = server.ask("/v1/models", None, _served)
        except ServerError as error:
            raise InputError(f"no vLLM server at {self.address}; start one with: vllm serve MODEL ({error})") from error
        handing: Handing = ByAdapter(server, self.folder) if self.weights == "lora" else ByFolder(server, self.folder, name)
        return VllmGenerator(model, self, server, handing, longest)


class VllmGenerator:
    """The vLLM engine opened for a model.

    Args:
        model: its weights may change between calls.
        engine: the fields of the engine.
        server: writes the completions.
        handing: hands the weights over.
        longest: positions that the server allows to prompt and completion; None where it does not say.
    """

    def __init__(self, model: nn.Module, engine: Vllm, server: Server, handing: Handing, longest: int | None) -> None:
        self._model, self._engine, self._server, self._handing, self._longest = model, engine, server, handing, longest
        self._mark, self._name = "", ""

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, *, seed: int, leave: Leave, hooks: Sequence[LogitsHook] = ()
    ) -> list[Completion]:
        """Return every request's completions in order of (request, sample), with the weights as they are now.

        Raises:
            InputError: for hooks, and for a request or sampling that the server cannot meet; nothing has been spent then.
            ServerError: when the server fails for good.
        """
        self._check(requests, sampling, hooks)
        if not requests:
            return []
        mark = weights_mark(self._model)
        if mark != self._mark:
            self._name = self._handing(self._model, mark)
            self._mark = mark
        jobs = _jobs(requests)
        written: list[Completion] = []
        under_way: deque[tuple[_Job, Future[Completion]]] = deque()
        with ThreadPoolExecutor(min(self._engine.parallel, len(jobs))) as pool:
            try:
                for job in jobs:
                    if len(under_way) == self._engine.parallel:
                        written.append(_settled(*under_way.popleft(), leave))
                    if not leave(_most([*(other for other, _ in under_way), job])):
                        break
                    under_way.append((job, pool.submit(self._write, job, sampling, seed)))
                while under_way:
                    written.append(_settled(*under_way.popleft(), leave))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return written + [Completion(job.place, job.sample, (), (), "cut") for job in jobs[len(written) :]]

    def _check(self, requests: Sequence[Request], sampling: Sampling, hooks: Sequence[LogitsHook]) -> None:
        if hooks:
            raise InputError("rollout/vllm cannot change logits: its server knows no hooks; take rollout/local")
        check_counts(requests)
        for number, request in enumerate(requests):
            needed = len(request.prompt) + request.limit
            if self._longest is not None and needed > self._longest:
                raise InputError(
                    f"request {number} takes {needed} positions and the server allows {self._longest}; shorten its prompt of "
                    f"{len(request.prompt)} tokens or its limit of {request.limit}, or start the server with a larger --max-model-len"
                )
        if self._engine.logprobs == "raw" and sampling.temperature not in (0, 1):
            raise InputError(
                f"with logprobs: raw the server tells log-probabilities of temperature 1, and sampling is at {sampling.temperature}; start it "
                "with --logprobs-mode processed_logprobs and say logprobs: processed"
            )
        if self._engine.logprobs == "processed" and sampling.temperature > 0 and (sampling.top_p < 1 or sampling.top_k):
            raise InputError(
                "with logprobs: processed the server tells log-probabilities after top_p and top_k, and those before them are needed; leave both "
                f"out, found {sampling.top_p} and {sampling.top_k}"
            )

    def _write(self, job: _Job, sampling: Sampling, seed: int) -> Completion:
        body = {
            "model": self._name, "prompt": list(job.request.prompt), "max_tokens": job.request.limit, "n": 1,
            "seed": sample_stream(seed, job.request.stream, job.sample), "temperature": sampling.temperature, "top_p": sampling.top_p,
            "top_k": sampling.top_k, "stop": list(sampling.stop), "logprobs": 0, "return_token_ids": True, "skip_special_tokens": False,
            # the server would take what is not said from the model's own generation settings
            "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0,
        }  # fmt: skip
        return self._server.ask("/v1/completions", body, job.completion)


@dataclass(frozen=True)
class _Job:
    """One sample of a request; ``first`` for the one that brings its prompt."""

    place: int
    sample: int
    request: Request
    first: bool

    def work(self, written: int, when: Literal["ahead", "after"]) -> Work:
        return Work(len(self.request.prompt) if self.first else 0, written, written - 1, 1, when)

    def completion(self, answer: Any) -> Completion:
        """Take the server's answer apart.

        Raises:
            ValueError, KeyError, IndexError, TypeError: when it is no completion.
            ServerError: when the server is too old.
        """
        choice = answer["choices"][0]
        if choice.get("token_ids") is None:
            raise ServerError("the server returns no token_ids; rollout/vllm needs vLLM 0.10.2 or later")
        tokens = tuple(int(token) for token in choice["token_ids"])
        logprobs = tuple(float(value) for value in choice["logprobs"]["token_logprobs"])
        if not 0 < len(tokens) == len(logprobs) <= self.request.limit:
            raise ValueError(f"{len(tokens)} tokens with {len(logprobs)} log-probabilities for a limit of {self.request.limit}")
        return Completion(self.place, self.sample, tokens, logprobs, _ended(choice["finish_reason"], choice.get("stop_reason")))


def _jobs(requests: Sequence[Request]) -> list[_Job]:
    prompts: set[tuple[int, ...]] = set()
    jobs = []
    for place, request in enumerate(requests):
        for sample in range(request.samples):
            jobs.append(_Job(place, sample, request, request.prompt not in prompts))
            prompts.add(request.prompt)
    return jobs


def _most(jobs: Sequence[_Job]) -> Work:
    """Return the most that unfinished samples can take together."""
    each = [job.work(job.request.limit, "ahead") for job in jobs]
    return Work(
        sum(work.prompt_tokens for work in each),
        sum(work.new_tokens for work in each),
        sum(work.read_tokens for work in each),
        len(each),
        "ahead",
    )


def _settled(job: _Job, future: Future[Completion], leave: Leave) -> Completion:
    completion = future.result()
    leave(job.work(len(completion.tokens), "after"))
    return completion


def _ended(finish: str, stop: Any) -> Ended:
    if finish == "length":
        return "limit"
    if finish != "stop":
        raise ValueError(f"the completion ended by {finish!r}")
    return "stop" if isinstance(stop, str) else "end"  # a number is another end mark of the model


def _served(answer: Any) -> tuple[str, int | None]:
    """Return the name of the served base model and how many positions it allows."""
    card = next(card for card in answer["data"] if not card.get("parent"))
    return str(card["id"]), card.get("max_model_len")
