"""The contract of rollout engines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from outlay.context import Context
from outlay.rng import torch_generator
from outlay.rollout.base import Completion, Engine, Generator, Request, Sampling, Work
from outlay.testing.common import global_generators_untouched, hold

_GREEDY = Sampling(temperature=0.0)


def check_engine(
    engine: Engine,
    model: nn.Module,
    tokenizer: Any,
    *,
    others: Sequence[Engine] = (),
    streams: bool = True,
    forward: bool = True,
    hooks: bool = True,
    weights: bool = True,
    temperatures: bool = True,
    pieces: bool = True,
    shared_prompts: bool = True,
    tolerance: float = 1e-4,
) -> list[Completion]:
    """Check the rollout seam: counts, limits and order, end marks and stop strings, the distribution's log-probabilities, leave before work, and
    the model left as it was. What an engine cannot do is left out only by saying so.

    Args:
        engine: what is checked.
        model: causal language model on the CPU with a forward of its own, such as a small models/transformer; its weights are changed and put back.
        tokenizer: the model's, with an end mark and at least a dozen ordinary tokens.
        others: the same engine in other sizes (places, batches), which must write the same.
        streams: whether samples depend on their own random stream alone, so that order and company change nothing.
        forward: whether tokens and log-probabilities are those of ``model``; False for an engine that talks to another model.
        hooks: whether logits hooks are applied.
        weights: whether changed weights are seen by the next call.
        temperatures: whether temperatures other than 0 and 1 are served; looked at with ``forward`` alone.
        pieces: whether the engine asks for leave piece by piece, so that it can be stopped on the way; False for one that asks once.
        shared_prompts: whether a prompt is computed once for everybody who asks for it.
        tolerance: of log-probabilities, absolute.

    Returns:
        Completions sampled at temperature 1.

    Raises:
        AssertionError: naming the rule that was broken.
    """
    checked = _Checked(type(engine).__name__, model, tokenizer, tolerance)
    requests = checked.requests()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = {name: module.training for name, module in model.named_modules()}
    generator = engine.open(model, Context(0, tokenizer))
    generator.generate(requests[:1], _GREEDY, seed=0, leave=lambda work: True)  # the first time may import packages that draw
    with global_generators_untouched(checked.name):
        sampled = checked.plain(generator, requests, Sampling(), shared_prompts)
        greedy = checked.plain(generator, requests, _GREEDY, shared_prompts)
    checked.untouched(before, modes)
    if forward:
        checked.forward(generator, requests, sampled, greedy, temperatures)
    checked.narrow(generator, requests, greedy)
    if streams:
        checked.streams(generator, requests, sampled)
    for other in others:
        again = checked.generate(other.open(model, Context(0, tokenizer)), requests, Sampling(), 1)
        hold(
            checked.tokens(again) == checked.tokens(sampled), "the engine's size changes nothing", f"{other} writes otherwise than {engine}"
        )
    checked.stops(generator, requests, greedy)
    checked.cuts(generator, requests, greedy, pieces)
    if hooks:
        checked.hooks(generator, requests, greedy)
    if weights:
        checked.weights(generator, requests, forward)
    return sampled


@dataclass
class _Ledger:
    """What an engine asked leave for. ``bears`` says whether the budget still does."""

    bears: Callable[[_Ledger], bool] = lambda _: True
    #: of what was asked ahead, what has not been told afterwards: prompt, new and read tokens, rollouts
    promised: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    prompt: int = 0
    new: int = 0
    read: int = 0
    rollouts: int = 0
    asked: int = 0
    refused: int = 0
    after_refusal: int = 0

    def leave(self, work: Work) -> bool:
        if work.when != "after":
            self.asked += 1
            self.after_refusal += self.refused
            if not self.bears(self):
                self.refused = 1
                return False
        amounts = [work.prompt_tokens, work.new_tokens, work.read_tokens, work.rollouts]
        if work.when == "ahead":
            self.promised = amounts
        if work.when == "after":
            left = [most - took for most, took in zip(self.promised, amounts, strict=True)]
            hold(min(left) >= 0, "what is told afterwards is no more than was asked ahead", f"told {amounts}, {self.promised} were left")
            self.promised = left
        if work.when != "ahead":
            self.prompt += work.prompt_tokens
            self.new += work.new_tokens
            self.read += work.read_tokens
            self.rollouts += work.rollouts
        return True


@dataclass
class _Checked:
    name: str
    model: nn.Module
    tokenizer: Any
    tolerance: float
    end: int = field(init=False)

    def __post_init__(self) -> None:
        self.end = self.tokenizer.eos_token_id

    def requests(self) -> list[Request]:
        """Prompts of different lengths, one of them twice; different samples and limits."""
        usual = [token for token in range(len(self.tokenizer)) if token not in self.tokenizer.all_special_ids]
        one, other, third = tuple(usual[:4]), tuple(usual[5:8]), tuple(reversed(usual[3:12]))
        return [Request(one, 3, 9, 0), Request(other, 1, 2, 1), Request(one, 2, 12, 2), Request(third, 2, 1, 3), Request(third, 4, 6, 4)]

    def generate(
        self, generator: Generator, requests: Sequence[Request], sampling: Sampling, seed: int, ledger: _Ledger | None = None, **more: Any
    ) -> list[Completion]:
        """Generate, and hold that the answers are complete, in order, within their limits, and say rightly how they ended."""
        ledger = ledger or _Ledger()
        found = generator.generate(requests, sampling, seed=seed, leave=ledger.leave, **more)
        wanted = [(i, sample) for i, request in enumerate(requests) for sample in range(request.samples)]
        got = [(each.request, each.sample) for each in found]
        hold(got == wanted, "every sample of every request comes back, in order", f"{self.name} returned {got}, wanted {wanted}")
        for each in found:
            limit, what = requests[each.request].limit, f"{self.name} returned {each}"
            hold(len(each.tokens) == len(each.logprobs), "every token has its log-probability", what)
            hold(len(each.tokens) <= limit, f"no completion is longer than its limit, here {limit}", what)
            hold(all(score <= 1e-6 for score in each.logprobs), "log-probabilities are not positive", what)
            hold(self.end not in each.tokens[:-1], "nothing is written after the end mark", what)
            hold(
                (each.tokens[-1:] == (self.end,)) == (each.ended == "end"),
                "an answer ended by its end mark, and by it alone, ends 'end'",
                what,
            )
            if each.ended == "limit":
                hold(len(each.tokens) == limit, f"an answer that ends at its limit has it, here {limit}", what)
            hold(bool(sampling.stop) or each.ended != "stop", "without stop strings none can stop an answer", what)
        hold(not ledger.after_refusal, "a refusal ends the generation", f"{self.name} asked for leave again")
        written = sum(len(each.tokens) for each in found)
        hold(ledger.new == written, "what is charged as written is what was written", f"{self.name} charged {ledger.new}, wrote {written}")
        begun = sum(bool(each.tokens) for each in found)
        hold(
            ledger.rollouts == begun, "what is charged as begun is what was begun", f"{self.name} charged {ledger.rollouts}, began {begun}"
        )
        read = sum(max(0, len(each.tokens) - 1) for each in found)
        seen = f"{self.name} charged {ledger.read}, and {read} tokens have a successor"
        hold(ledger.read == read, "every token but a completion's last is read back", seen)
        hold(bool(ledger.refused) or all(each.ended != "cut" for each in found), "nothing is cut off unless leave was refused", f"{found}")
        return found

    def plain(self, generator: Generator, requests: Sequence[Request], sampling: Sampling, shared: bool) -> list[Completion]:
        ledger = _Ledger()
        found = self.generate(generator, requests, sampling, 1, ledger)
        once = sum(len(prompt) for prompt in {request.prompt for request in requests})
        every = sum(len(request.prompt) * request.samples for request in requests)
        seen = f"{self.name} charged {ledger.prompt} prompt tokens; different prompts hold {once}, all samples' {every}"
        if shared:
            hold(ledger.prompt == once, "a prompt is computed once for everybody who asked for it", seen)
        hold(once <= ledger.prompt <= every, "prompts are charged at least once and at most once a sample", seen)
        again = self.generate(generator, requests, sampling, 1)
        hold(self.tokens(again) == self.tokens(found), "the same seed writes the same", f"{self.name} wrote {again}, before {found}")
        return found

    @staticmethod
    def tokens(found: Sequence[Completion]) -> list[tuple[int, ...]]:
        return [each.tokens for each in found]

    def logits(self, prompt: Sequence[int], tokens: Sequence[int]) -> torch.Tensor:
        """Return the model's logits before each of the tokens."""
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.eval()
        try:
            with torch.no_grad():
                ids = torch.tensor([[*prompt, *tokens]])
                found: torch.Tensor = self.model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
        finally:
            for module, mode in modes:
                module.training = mode
        return found.double()

    def untouched(self, before: Mapping[str, torch.Tensor], modes: Mapping[str, bool]) -> None:
        changed = [name for name, tensor in self.model.state_dict().items() if not torch.equal(tensor, before[name])]
        hold(not changed, "an engine leaves the model as it was", f"{self.name} changed {changed[:5]}")
        moved = [name for name, module in self.model.named_modules() if module.training != modes[name]]
        hold(not moved, "an engine puts every module back into its own mode", f"{self.name} left {moved[:5]} in another")

    def forward(
        self,
        generator: Generator,
        requests: Sequence[Request],
        sampled: Sequence[Completion],
        greedy: Sequence[Completion],
        temperatures: bool,
    ) -> None:
        """Hold that what was written is what the model says."""
        self.trainable()
        self.scores(requests, sampled, 1.0)
        self.scores(requests, greedy, 1.0)
        self.likeliest(requests, greedy)
        if temperatures:
            self.scores(requests, self.generate(generator, requests, Sampling(temperature=1.7), 5), 1.7)

    def narrow(self, generator: Generator, requests: Sequence[Request], greedy: Sequence[Completion]) -> None:
        for sampling, rule in (
            (Sampling(top_k=1), "top_k = 1 takes the likeliest token"),
            (Sampling(top_p=1e-9), "the smallest top_p takes the likeliest token"),
        ):
            found = self.generate(generator, requests, sampling, 5)
            hold(self.tokens(found) == self.tokens(greedy), rule, f"{self.name} differs from temperature 0")

    def scores(self, requests: Sequence[Request], found: Sequence[Completion], temperature: float) -> None:
        for each in found:
            expected = torch.log_softmax(self.logits(requests[each.request].prompt, each.tokens) / temperature, -1)
            expected = expected[torch.arange(len(each.tokens)), list(each.tokens)]
            off = float((expected - torch.tensor(each.logprobs, dtype=torch.double)).abs().max())
            rule = "log-probabilities are those of a forward pass over the whole, at the sampling temperature"
            hold(off <= self.tolerance, rule, f"{self.name} is off by {off} at temperature {temperature} in {each}")

    def likeliest(self, requests: Sequence[Request], found: Sequence[Completion]) -> None:
        for each in found:
            logits = self.logits(requests[each.request].prompt, each.tokens)
            short = float((logits.max(-1).values - logits[torch.arange(len(each.tokens)), list(each.tokens)]).max())
            hold(short <= self.tolerance, "temperature 0 takes the likeliest token", f"{self.name} falls short by {short} in {each}")

    def trainable(self) -> None:
        """Hold that gradients still reach the parameters."""
        ids = torch.tensor([list(self.requests()[0].prompt)])
        wanted = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        loss = self.model(input_ids=ids).logits.float().logsumexp(-1).sum()
        found = torch.autograd.grad(loss, wanted, allow_unused=True)
        hold(any(each is not None for each in found), "the model can be trained afterwards", f"no gradient after {self.name}")

    def streams(self, generator: Generator, requests: Sequence[Request], sampled: Sequence[Completion]) -> None:
        known = {(requests[each.request].stream, each.sample): each for each in sampled}
        for order in ([4, 2, 0, 1, 3], [2], [3, 4]):
            some = [requests[i] for i in order]
            for each in self.generate(generator, some, Sampling(), 1):
                expected = known[some[each.request].stream, each.sample]
                rule = "a sample depends on its own random stream, never on order or company"
                hold(each.tokens == expected.tokens, rule, f"{self.name} wrote {each} in the order {order}, before {expected}")
                off = max((abs(a - b) for a, b in zip(each.logprobs, expected.logprobs, strict=True)), default=0.0)
                hold(off <= self.tolerance, rule, f"log-probabilities of {each} are off by {off}")
        other = self.generate(generator, requests, Sampling(), 2)
        hold(self.tokens(other) != self.tokens(sampled), "another seed writes something else", f"{self.name} wrote the same")
        moved = [Request(each.prompt, each.samples, each.limit, each.stream + 100) for each in requests]
        other = self.generate(generator, moved, Sampling(), 1)
        hold(self.tokens(other) != self.tokens(sampled), "another stream writes something else", f"{self.name} wrote the same")
        several = [each.tokens for each in sampled if each.request in (0, 2)]
        hold(len(set(several)) > 1, "samples of a prompt have streams of their own", f"{self.name} wrote {several}")

    def text(self, tokens: Sequence[int]) -> str:
        found: str = self.tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return found

    def stops(self, generator: Generator, requests: Sequence[Request], greedy: Sequence[Completion]) -> None:
        longest = max(greedy, key=lambda each: len(each.tokens) - (each.ended == "end"))
        stop = self.text(longest.tokens[1:3])  # two tokens: neither holds it alone
        hold(bool(stop), "the check needs a model that writes a few tokens", f"{longest}")
        for each, whole in zip(self.generate(generator, requests, Sampling(0.0, stop=(stop,)), 1), greedy, strict=True):
            ends = [count for count in range(1, len(whole.tokens) + 1) if stop in self.text(whole.tokens[:count])]
            expected = whole.tokens[: ends[0]] if ends else whole.tokens
            rule = f"an answer ends once its text holds a stop string, here {stop!r}, with the tokens that complete it"
            hold(each.tokens == expected, rule, f"{self.name} wrote {each}, without it {whole}")
            by_mark = expected[-1:] == (self.end,)
            ended = "end" if by_mark else "stop" if ends else whole.ended
            hold(each.ended == ended, f"it then ended {ended!r}", f"{self.name} says {each.ended!r}")

    def cuts(self, generator: Generator, requests: Sequence[Request], greedy: Sequence[Completion], pieces: bool) -> None:
        ledger = _Ledger(lambda _: False)
        found = self.generate(generator, requests, _GREEDY, 1, ledger)
        nothing = all(each.ended == "cut" and not each.tokens for each in found)
        hold(nothing, "without leave nothing is begun", f"{self.name} wrote {found}")
        whole = _Ledger()
        self.generate(generator, requests, _GREEDY, 1, whole)
        if not pieces:
            return
        hold(whole.asked > 1, "leave is asked before every piece", f"{self.name} asked {whole.asked} times")
        for bears in range(1, whole.asked):
            ledger = _Ledger(lambda seen, bears=bears: seen.asked <= bears)  # type: ignore[misc]
            found = self.generate(generator, requests, _GREEDY, 1, ledger)
            hold(ledger.refused == 1, "leave is asked before every piece", f"{self.name} asked {ledger.asked} times, before {whole.asked}")
            hold(any(each.ended == "cut" for each in found), "what is unfinished comes back cut", f"{found}")
            for each, full in zip(found, greedy, strict=True):
                kept = each.tokens == full.tokens[: len(each.tokens)] and (each.ended == "cut" or each == full or each.ended == full.ended)
                hold(kept, "what is cut off is the beginning of what would have been written", f"{self.name} wrote {each}, uncut {full}")

    def hooks(self, generator: Generator, requests: Sequence[Request], greedy: Sequence[Completion]) -> None:
        seen: dict[tuple[int, int], list[tuple[int, ...]]] = {}
        forced = requests[0].prompt[0]

        def hook(logits: torch.Tensor, rows: Sequence[tuple[int, int]], written: Sequence[Sequence[int]]) -> torch.Tensor:
            hold(len(logits) == len(rows) == len(written), "a hook sees one line of logits a row", f"{logits.shape}, {len(rows)} rows")
            for place, (row, tokens) in enumerate(zip(rows, written, strict=True)):
                seen.setdefault(row, []).append(tuple(tokens))
                if row[1] == 0:
                    logits[place] = -torch.inf
                    logits[place, forced] = 1.0
            return logits

        for each, whole in zip(self.generate(generator, requests, _GREEDY, 1, hooks=[hook]), greedy, strict=True):
            limit, what = requests[each.request].limit, f"{self.name} wrote {each}"
            if each.sample == 0:
                hold(each.tokens == (forced,) * limit, f"a hook that leaves token {forced} alone has it written", what)
                hold(max(map(abs, each.logprobs)) <= self.tolerance, "log-probabilities are those after the hooks", what)
            else:
                hold(each.tokens == whole.tokens, "a hook changes the rows that it changes alone", f"{what}, without it {whole}")
            steps = [each.tokens[:count] for count in range(len(each.tokens))]
            known = seen[each.request, each.sample]
            hold(known == steps, "a hook is told before every token what was written", f"{known} for {each}")

    def weights(self, generator: Generator, requests: Sequence[Request], forward: bool) -> None:
        before = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        old = self.generate(generator, requests, _GREEDY, 1)
        noise = torch_generator(0, "testing/rollout")
        try:
            with torch.no_grad():
                for parameter in self.model.parameters():
                    parameter.mul_(1 + torch.randn(parameter.shape, generator=noise).to(parameter))
            found = self.generate(generator, requests, _GREEDY, 1)
            other = [each.logprobs for each in found] != [each.logprobs for each in old]
            hold(other, "the next call sees changed weights", f"{self.name} wrote the same as before")
            if forward:
                self.scores(requests, found, 1.0)
        finally:
            self.model.load_state_dict(before)
