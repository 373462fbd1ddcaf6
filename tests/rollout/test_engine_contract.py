"""The contract of engines refuses one that breaks it, and says which rule it was."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from outlay.context import Context
from outlay.models import Transformer
from outlay.rollout import Completion, Generator, Local, Request, Sampling, Work
from outlay.testing import check_engine

#: (generator, requests, sampling, keyword arguments of generate) -> completions
Way = Callable[[Generator, Sequence[Request], Sampling, dict[str, Any]], list[Completion]]


@dataclass(frozen=True)
class Broken:
    """The local engine with something done to what goes in or comes out."""

    way: Way
    stale: bool = False
    left_in_evaluation: bool = False

    def open(self, model: nn.Module, context: Context) -> Any:
        if self.left_in_evaluation:
            model.eval()
        inner = Local().open(copy.deepcopy(model) if self.stale else model, context)
        way = self.way

        class Opened:
            def generate(self, requests: Sequence[Request], sampling: Sampling, **more: Any) -> list[Completion]:
                return way(inner, requests, sampling, more)

        return Opened()


def right(inner: Generator, requests: Sequence[Request], sampling: Sampling, more: dict[str, Any]) -> list[Completion]:
    return inner.generate(requests, sampling, **more)


def on_work(change: Callable[[Work], Work]) -> Way:
    def way(inner: Generator, requests: Sequence[Request], sampling: Sampling, more: dict[str, Any]) -> list[Completion]:
        leave = more["leave"]
        return inner.generate(requests, sampling, **more | {"leave": lambda work: leave(change(work))})

    return way


def on_sampling(change: Callable[[Sampling], Sampling]) -> Way:
    return lambda inner, requests, sampling, more: inner.generate(requests, change(sampling), **more)


def on_found(change: Callable[[list[Completion]], list[Completion]]) -> Way:
    return lambda inner, requests, sampling, more: change(inner.generate(requests, sampling, **more))


def by_place(inner: Generator, requests: Sequence[Request], sampling: Sampling, more: dict[str, Any]) -> list[Completion]:
    moved = [dataclasses.replace(request, stream=place) for place, request in enumerate(requests)]
    return inner.generate(moved, sampling, **more)


def one_stream(inner: Generator, requests: Sequence[Request], sampling: Sampling, more: dict[str, Any]) -> list[Completion]:
    found: list[Completion] = []
    for number, request in enumerate(requests):
        for sample in range(request.samples):
            one = inner.generate([dataclasses.replace(request, samples=1)], sampling, **more)[0]
            found.append(dataclasses.replace(one, request=number, sample=sample))
    return found


def from_global(inner: Generator, requests: Sequence[Request], sampling: Sampling, more: dict[str, Any]) -> list[Completion]:
    torch.rand(1)
    return inner.generate(requests, sampling, **more)


def deaf(inner: Generator, requests: Sequence[Request], sampling: Sampling, more: dict[str, Any]) -> list[Completion]:
    leave, found = more["leave"], [True]

    def once(work: Work) -> bool:
        found[0] = leave(work) and found[0]
        return found[0] or leave(work)

    return inner.generate(requests, sampling, **more | {"leave": once})


def asks_once(inner: Generator, requests: Sequence[Request], sampling: Sampling, more: dict[str, Any]) -> list[Completion]:
    works: list[Work] = []
    inner.generate(requests, sampling, **more | {"leave": lambda work: works.append(work) or True})
    names = ("prompt_tokens", "new_tokens", "read_tokens", "rollouts")
    allowed = more["leave"](Work(**{name: sum(getattr(work, name) for work in works) for name in names}))
    return inner.generate(requests, sampling, **more | {"leave": lambda work: allowed})


def scores(change: Callable[[float], float]) -> Way:
    return on_found(lambda found: [dataclasses.replace(one, logprobs=tuple(map(change, one.logprobs))) for one in found])


def asks_ahead(share: float) -> Way:
    """Ask for a share of what a piece writes, and tell what it took."""

    def way(inner: Generator, requests: Sequence[Request], sampling: Sampling, more: dict[str, Any]) -> list[Completion]:
        def leave(work: Work) -> bool:
            allowed: bool = more["leave"](dataclasses.replace(work, new_tokens=int(share * work.new_tokens), when="ahead"))
            if allowed:
                more["leave"](dataclasses.replace(work, when="after"))
            return allowed

        return inner.generate(requests, sampling, **more | {"leave": leave})

    return way


BREACHES: dict[str, tuple[Broken, str]] = {
    "one is missing": (Broken(on_found(lambda found: found[:-1])), "every sample of every request comes back"),
    "out of order": (Broken(on_found(lambda found: found[::-1])), "every sample of every request comes back, in order"),
    "scores of another temperature": (Broken(scores(lambda score: score * 0.9)), "log-probabilities are those of a forward pass"),
    "no temperature": (Broken(on_sampling(lambda s: dataclasses.replace(s, temperature=min(s.temperature, 1.0)))), "sampling temperature"),
    "no top_k": (Broken(on_sampling(lambda s: dataclasses.replace(s, top_k=0))), "top_k = 1 takes the likeliest"),
    "no top_p": (Broken(on_sampling(lambda s: dataclasses.replace(s, top_p=1.0))), "the smallest top_p"),
    "no greed": (Broken(on_sampling(lambda s: dataclasses.replace(s, temperature=s.temperature or 1.0))), "takes the likeliest token"),
    "no stop": (Broken(on_sampling(lambda s: dataclasses.replace(s, stop=()))), "once its text holds a stop string"),
    "no hooks": (Broken(lambda i, r, s, more: i.generate(r, s, **more | {"hooks": ()})), "a hook that leaves token"),
    "no end": (Broken(on_found(lambda found: [dataclasses.replace(one, ended="limit") for one in found])), "ends at its limit|ends 'end'"),
    "streams by place": (Broken(by_place), "never on order or company"),
    "one stream for all samples": (Broken(one_stream), "a prompt is computed once"),
    "one seed": (Broken(lambda i, r, s, more: i.generate(r, s, **more | {"seed": 1})), "another seed writes something else"),
    "global generator": (Broken(from_global), "never from a global generator"),
    "free prompts": (Broken(on_work(lambda w: dataclasses.replace(w, prompt_tokens=0))), "a prompt is computed once"),
    "prompts twice": (Broken(on_work(lambda w: dataclasses.replace(w, prompt_tokens=2 * w.prompt_tokens))), "a prompt is computed once"),
    "free tokens": (Broken(on_work(lambda w: dataclasses.replace(w, new_tokens=0))), "what is charged as written"),
    "free reading": (Broken(on_work(lambda w: dataclasses.replace(w, read_tokens=0))), "every token but a completion's last is read back"),
    "free rollouts": (Broken(on_work(lambda w: dataclasses.replace(w, rollouts=0))), "what is charged as begun"),
    "does not hear no": (Broken(deaf), "a refusal ends the generation"),
    "asks for too little": (Broken(asks_ahead(0.9)), "told afterwards is no more than was asked ahead"),
    "asks once": (Broken(asks_once), "leave is asked before every piece"),
    "old weights": (Broken(right, stale=True), "the next call sees changed weights"),
    "left in evaluation mode": (Broken(right, left_in_evaluation=True), "puts every module back into its own mode"),
}


@pytest.fixture(scope="module")
def built() -> tuple[nn.Module, Any]:
    loaded = Transformer(hidden=16, layers=1, heads=2).build(0)
    with torch.no_grad():
        for parameter in loaded.module.parameters():
            parameter.mul_(3)
    return loaded.module, loaded.tokenizer


def test_a_right_engine_passes(built: tuple[nn.Module, Any]) -> None:
    check_engine(Broken(right), *built)
    check_engine(Broken(asks_ahead(1.0)), *built)


@pytest.mark.parametrize("breach", BREACHES)
def test_a_broken_engine_is_refused(built: tuple[nn.Module, Any], breach: str) -> None:
    engine, rule = BREACHES[breach]
    built[0].train()
    with pytest.raises(AssertionError, match=rule):
        check_engine(engine, *built)


@pytest.mark.parametrize(
    ("breach", "without"),
    {
        "no hooks": ("hooks",),
        "no temperature": ("temperatures",),
        "asks once": ("pieces", "hooks"),  # it writes twice, and so calls its hooks twice
        "old weights": ("weights",),
        "streams by place": ("streams",),
        "scores of another temperature": ("forward",),
        "prompts twice": ("shared_prompts",),
    }.items(),
)
def test_what_an_engine_cannot_do_is_left_out_by_saying_so(built: tuple[nn.Module, Any], breach: str, without: tuple[str, ...]) -> None:
    check_engine(BREACHES[breach][0], *built, **dict.fromkeys(without, False))  # type: ignore[arg-type]
