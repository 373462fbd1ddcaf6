from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from outlay.context import Context
from outlay.errors import InputError
from outlay.evaluations import ExactMatch, SampledMatch
from outlay.evaluations.sampled_match import pass_at
from outlay.models import Transformer
from outlay.models.tokenizers import open_tokenizer
from outlay.rollout import Completion, Leave, Local, LogitsHook, Request, Sampling, Work
from outlay.sources import Arrays
from outlay.testing import check_exam

TOKENIZER = open_tokenizer("characters")
CONTEXT = Context(seed=3, tokenizer=TOKENIZER)
NONE = Arrays(train={"inputs": torch.zeros(1)})
END = 2


@dataclass(frozen=True)
class Scripted:
    """An engine whose sample i to the p-th prompt is what ``reply`` says of the prompt's text, p and i; it ends unless told otherwise."""

    reply: Callable[[str, int, int], str]
    end: bool = True

    def open(self, model: nn.Module, context: Context) -> Scripted:
        return self

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, *, seed: int, leave: Leave, hooks: Sequence[LogitsHook] = ()
    ) -> list[Completion]:
        written = []
        for place, request in enumerate(requests):
            prompt = TOKENIZER.decode(list(request.prompt))
            for sample in range(request.samples):
                tokens = tuple(TOKENIZER(self.reply(prompt, place, sample))["input_ids"])
                tokens = (*tokens, END) if self.end else tokens
                written.append(Completion(place, sample, tokens, (0.0,) * len(tokens), "end" if self.end else "limit"))
        most = Work(prompt_tokens=10**9, when="ahead")  # asked about, not done
        assert leave(most) and leave(Work(prompt_tokens=7)) and leave(Work(new_tokens=5, read_tokens=4, when="after"))
        return written


def sit(exam: SampledMatch, model: nn.Module | None = None, context: Context = CONTEXT) -> tuple[dict[str, float], list[tuple[Any, float]]]:
    charged: list[tuple[Any, float]] = []
    with torch.no_grad():
        result = exam.open(context, NONE).run((model or nn.Linear(1, 1)).eval(), lambda batch, new: charged.append((batch, new)))
    return result, charged


def backward(prompt: str) -> str:
    return prompt[1:-1][::-1]


@pytest.mark.parametrize(
    ("right", "samples", "k"), [(0, 4, 2), (1, 4, 2), (2, 5, 3), (3, 4, 2), (4, 4, 1), (1, 1, 1), (6, 8, 8), (2, 6, 4)]
)
def test_pass_at_k_is_the_share_of_choices_of_k_with_a_right_one(right: int, samples: int, k: int) -> None:
    choices = list(itertools.combinations(range(samples), k))
    assert pass_at(k, right, samples) == pytest.approx(sum(any(i < right for i in choice) for choice in choices) / len(choices))


def test_metrics_by_hand() -> None:
    """The first sample of each reversal is right, the second for every second problem; sorts are never right."""
    engine = Scripted(lambda prompt, place, i: backward(prompt) if i == 0 or (i == 1 and place % 2 == 0) else "zzz")
    exam = SampledMatch(tasks={"reverse": (1,), "gcd": (1,)}, problems=10, samples=4, k=(1, 2, 4), engine=engine)
    result, _ = sit(exam)
    one, two = 1 - 3 / 6, 1 - 1 / 6  # pass@2 with 1 and 2 right of 4
    assert result == pytest.approx({
        "sampled_match/reverse/1": (1 / 4 + 2 / 4) / 2, "sampled_match/gcd/1": 0.0, "sampled_match": 3 / 16,
        "pass_at_1": 3 / 16, "pass_at_2": (one + two) / 4, "pass_at_4": 0.5,
    })  # fmt: skip


def test_without_k_the_number_of_samples_is_taken() -> None:
    engine = Scripted(lambda prompt, place, i: backward(prompt) if i == 2 else "")
    result, _ = sit(SampledMatch(tasks={"reverse": (1,)}, problems=5, samples=3, engine=engine))
    assert result == pytest.approx({"sampled_match/reverse/1": 1 / 3, "sampled_match": 1 / 3, "pass_at_3": 1.0})


@pytest.mark.parametrize(
    "spoil", [lambda answer: answer + "x", lambda answer: "<unk>" + answer, lambda answer: answer + "<pad>", lambda answer: ""]
)
def test_only_the_whole_answer_is_right(spoil: Callable[[str], str]) -> None:
    exam = SampledMatch(tasks={"reverse": (1,)}, problems=5, samples=2, engine=Scripted(lambda prompt, place, i: spoil(backward(prompt))))
    assert sit(exam)[0]["sampled_match"] == 0.0


def test_an_answer_that_does_not_end_is_wrong() -> None:
    # also where what stands before its last token would be right
    for more, end, right in (("", True, 1.0), ("", False, 0.0), ("x", False, 0.0)):
        engine = Scripted(lambda prompt, place, i, more=more: backward(prompt) + more, end)  # type: ignore[misc]
        result, _ = sit(SampledMatch(tasks={"reverse": (1,)}, problems=5, samples=2, engine=engine))
        assert result["sampled_match"] == right


def test_what_was_done_is_charged_and_what_was_asked_about_is_not() -> None:
    _, charged = sit(SampledMatch(tasks={"reverse": (1,)}, problems=4, samples=2, engine=Scripted(lambda prompt, place, i: "")))
    [(batch, new)] = charged
    assert new == 5 and int(batch["attention_mask"].sum()) == 7 + 4 and batch["input_ids"].shape == (4, 3)


def test_bound_by_hand() -> None:
    exam = SampledMatch(tasks={"reverse": (1,)}, problems=10, samples=3, new_tokens=9)
    prompts = ExactMatch(tasks={"reverse": (1,)}, problems=10).open(CONTEXT, NONE)
    letters = sum(int(part.mask.sum()) for part in prompts.questions)
    tokens = letters + 30 * 8
    assert exam.open(CONTEXT, NONE).bound() == {
        "examples": 10.0, "tokens": float(tokens), "positions": float(10 * -(-tokens // 10)), "new_tokens": 270.0,
    }  # fmt: skip


def half_sure() -> nn.Module:
    """A random model whose answers end at any place, so that some are right by chance."""
    model = Transformer(hidden=16, layers=2, heads=2, context=64, tie_embeddings=False).build(0).module
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(4.0)
    return model


def test_local_rollouts_are_charged_what_they_took() -> None:
    """As many tokens as the engine writes when it is asked the same by itself, prompts read once and last tokens not read back."""
    exam = SampledMatch(tasks={"gcd": (1,)}, problems=12, samples=5, new_tokens=6)
    model, sitting = half_sure(), exam.open(CONTEXT, NONE)
    from outlay.rng import derive

    requests = [Request(prompt, 5, 6, place) for place, prompt in enumerate(sitting.prompts)]
    seed = derive(3, "evaluations/sampled_match")
    written = Local().open(model.eval(), CONTEXT).generate(requests, Sampling(1.0), seed=seed, leave=lambda work: True)
    [(batch, new)] = sit(exam, model)[1]
    lengths = [len(one.tokens) for one in written]
    assert new == sum(lengths) and len(set(lengths)) > 2
    assert int(batch["attention_mask"].sum()) == sum(map(len, sitting.prompts)) + sum(length - 1 for length in lengths)


def test_its_mean_is_the_chance_of_the_right_answer() -> None:
    """Over many samples the share of right answers comes to the probability that the model gives them."""
    exam = SampledMatch(tasks={"gcd": (1,)}, problems=6, samples=4000, k=(1,), temperature=0.7)
    model, problems = half_sure(), exam.open(CONTEXT, NONE).problems

    def chances(temperature: float) -> torch.Tensor:
        found = []
        for problem in problems:
            prompt, answer = TOKENIZER(problem.prompt)["input_ids"], [*TOKENIZER(problem.answer)["input_ids"], END]
            logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
            found.append((logits / temperature).log_softmax(-1)[range(len(answer)), answer].sum().exp())
        return torch.stack(found)

    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    while float(chances(1.0).detach().mean()) < 0.3:  # an answer's chance must be seen in so many samples
        optimizer.zero_grad()
        (-chances(1.0).log().mean()).backward()
        optimizer.step()
    with torch.no_grad():
        assert sit(exam, model)[0]["sampled_match"] == pytest.approx(float(chances(0.7).mean()), abs=0.012)
        assert abs(float(chances(0.7).mean() - chances(1.0).mean())) > 0.03, "the temperature would go unseen"


def test_seeds_ask_what_exact_match_asks() -> None:
    def asked(exam: SampledMatch | ExactMatch, seed: int) -> list[str]:
        sitting: Any = exam.open(Context(seed=seed, tokenizer=TOKENIZER), NONE)
        if isinstance(exam, SampledMatch):
            return [problem.prompt for problem in sitting.problems]
        return [problem.prompt for part in sitting.questions for problem in part.problems]

    fields: dict[str, Any] = {"tasks": {"gcd": (2,)}, "problems": 40}
    assert sorted(asked(SampledMatch(**fields), 1)) == sorted(asked(ExactMatch(**fields), 1)) != sorted(asked(ExactMatch(**fields), 2))


def test_models_that_cannot_answer_are_named() -> None:
    with pytest.raises(InputError, match="Linear"):
        sit(SampledMatch(tasks={"gcd": (1,)}), nn.Linear(1, 1))
    with pytest.raises(InputError, match="evaluations/sampled_match needs a tokenizer"):
        SampledMatch(tasks={"gcd": (1,)}).open(Context(seed=0), NONE)
    with pytest.raises(InputError, match=r"answer '\w{4}' of task 'reverse' needs 5 tokens with its end mark, but new_tokens is 4"):
        SampledMatch(tasks={"reverse": (1,)}, problems=20, new_tokens=4).open(CONTEXT, NONE)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tasks": {"gcd": (9,)}}, "levels of 'gcd' are different whole numbers from 1 to 4"),
        ({"problems": 0}, "problems and samples must be > 0, found 0 and 8"),
        ({"samples": 0}, "problems and samples must be > 0, found 100 and 0"),
        ({"k": (1, 9)}, r"each k must lie in 1 to samples = 8, found \[1, 9\]"),
        ({"k": (0,)}, r"each k must lie in 1 to samples = 8, found \[0\]"),
        ({"temperature": 0.0}, r"temperature must be > 0 \(evaluations/exact_match asks at 0\), found 0.0"),
        ({"temperature": float("inf")}, "temperature must be a finite number"),
        ({"new_tokens": 0}, "new_tokens must be > 0 or None, found 0"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SampledMatch(**{"tasks": {"gcd": (1,)}, **fields})


def test_contract() -> None:
    metrics = check_exam(SampledMatch(tasks={"reverse": (2, 1), "gcd": (1,)}, problems=20, samples=3), CONTEXT, NONE, half_sure())
    assert set(metrics) == {"sampled_match", "sampled_match/gcd/1", "sampled_match/reverse/1", "sampled_match/reverse/2", "pass_at_3"}
