from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from outlay.adapters import Lora
from outlay.context import Context
from outlay.errors import InputError
from outlay.evaluations import ExactMatch
from outlay.models import Loaded, Transformer
from outlay.models.tokenizers import open_tokenizer
from outlay.sources import Arrays
from outlay.testing import check_exam

TOKENIZER = open_tokenizer("characters")
CONTEXT = Context(seed=3, tokenizer=TOKENIZER)
NONE = Arrays(train={"inputs": torch.zeros(1)})
PAD, END = 0, 2
EXAM = ExactMatch(tasks={"reverse": (2, 1), "gcd": (1,)}, problems=20, batch_size=16)


class Scripted(nn.Module):
    """Answers each prompt as a function of its text says; ``</s>`` in the reply is the end mark."""

    def __init__(self, reply: Callable[[str], str]) -> None:
        super().__init__()
        self.reply = reply
        self.prompts: list[str] = []

    def generate(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, generation_config: Any) -> torch.Tensor:
        prompts = [TOKENIZER.decode(row[mask.bool()].tolist()) for row, mask in zip(input_ids, attention_mask, strict=True)]
        self.prompts += prompts
        replies = [TOKENIZER(self.reply(prompt))["input_ids"][: generation_config.max_new_tokens] for prompt in prompts]
        width = max(map(len, replies))
        tail = torch.tensor([reply + [PAD] * (width - len(reply)) for reply in replies])
        return torch.cat([input_ids, tail], dim=1)


def reverse_or(other: str) -> Callable[[str], str]:
    return lambda prompt: prompt[1:-1][::-1] + "</s>" if prompt.startswith("r") else other


def sit(exam: ExactMatch, model: nn.Module, context: Context = CONTEXT) -> tuple[dict[str, float], list[tuple[Any, float]]]:
    charged: list[tuple[Any, float]] = []
    with torch.no_grad():
        result = exam.open(context, NONE).run(model.eval(), lambda batch, new: charged.append((batch, new)))
    return result, charged


def test_right_replies_are_counted_by_task_and_level() -> None:
    model = Scripted(reverse_or("1</s>"))
    result, _ = sit(EXAM, model)
    gcds = [prompt for prompt in model.prompts if prompt.startswith("g")]
    ones = sum(1 for prompt in gcds if _gcd(prompt) == 1) / len(gcds)
    assert 0 < ones < 1
    assert result == {
        "exact_match/gcd/1": ones, "exact_match/reverse/1": 1.0, "exact_match/reverse/2": 1.0, "exact_match": (ones + 2) / 3,
    }  # fmt: skip
    assert len(set(model.prompts)) == 60


def _gcd(prompt: str) -> int:
    import math

    return math.gcd(*map(int, prompt[1:-1].split(",")))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda answer: answer,  # the reply does not end
        lambda answer: answer + "x</s>",
        lambda answer: "<unk>" + answer + "</s>",
        lambda answer: answer + "<pad></s>",
        lambda answer: "</s>" + answer + "</s>",
        lambda answer: "</s>",
    ],
)
def test_only_the_whole_answer_up_to_the_end_mark_is_right(spoil: Callable[[str], str]) -> None:
    exam = ExactMatch(tasks={"reverse": (1,)}, problems=10, new_tokens=12)
    assert sit(exam, Scripted(lambda prompt: spoil(prompt[1:-1][::-1])))[0]["exact_match"] == 0.0
    assert sit(exam, Scripted(lambda prompt: prompt[1:-1][::-1] + "</s>zz</s>"))[0]["exact_match"] == 1.0


def test_charges_by_hand() -> None:
    exam = ExactMatch(tasks={"reverse": (1,)}, problems=10, batch_size=4, new_tokens=9)
    model = Scripted(reverse_or(""))
    _, charged = sit(exam, model)
    assert [len(batch["input_ids"]) for batch, _ in charged] == [4, 4, 2]
    batches = [model.prompts[:4], model.prompts[4:8], model.prompts[8:]]
    assert model.prompts == sorted(model.prompts, key=len)
    for (batch, new), prompts in zip(charged, batches, strict=True):
        words = [len(prompt) - 2 for prompt in prompts]
        assert new == sum(words) + len(words)
        # read are the prompts and all of the replies but their last token
        assert int(batch["attention_mask"].sum()) == sum(map(len, prompts)) + sum(min(word + 1, max(words)) for word in words)
        assert batch["input_ids"].shape == batch["attention_mask"].shape == (len(prompts), max(map(len, prompts)) + max(words))
    assert exam.open(CONTEXT, NONE).bound() == {
        "examples": 10.0,
        "tokens": float(sum(map(len, model.prompts)) + 10 * 8),
        "positions": float(sum(len(prompts) * (max(map(len, prompts)) + 8) for prompts in batches)),
        "new_tokens": 90.0,
    }


def test_the_default_length_is_what_the_longest_answer_takes() -> None:
    sitting = ExactMatch(tasks={"reverse": (1,)}, problems=20).open(CONTEXT, NONE)
    assert sitting.new_tokens == 4 + 1
    with pytest.raises(InputError, match=r"answer '\w{4}' of task 'reverse' needs 5 tokens with its end mark, but new_tokens is 4"):
        ExactMatch(tasks={"reverse": (1,)}, problems=20, new_tokens=4).open(CONTEXT, NONE)


def by_hand(model: nn.Module, prompt: str, new_tokens: int) -> list[int]:
    """Greedy decoding of one prompt without padding and without a cache."""
    ids = TOKENIZER(prompt)["input_ids"]
    start = len(ids)
    while len(ids) - start < new_tokens and (len(ids) == start or ids[-1] != END):
        row = torch.tensor([ids])
        with torch.no_grad():
            ids = [*ids, int(model(input_ids=row, attention_mask=torch.ones_like(row)).logits[0, -1].argmax())]
    return ids[start:]


def wilful(architecture: str) -> Loaded:
    """A random model with weights so large that its replies differ from prompt to prompt, and some of them end."""
    scale, ending, seed = {"llama": (3.0, 5.0, 2), "gpt2": (6.0, 2.0, 1)}[architecture]
    loaded = Transformer(architecture=architecture, hidden=16, layers=2, heads=2, context=64, tie_embeddings=False).build(seed)
    for p in loaded.module.parameters():
        if p.dim() > 1:
            p.data.mul_(scale)
    loaded.module.get_output_embeddings().weight.data[END] *= ending
    return loaded


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_generation_is_greedy_and_padding_changes_nothing(architecture: str) -> None:
    model = wilful(architecture).module.eval()
    # settings a chat model may bring along
    model.generation_config.update(do_sample=True, temperature=0.3, top_k=5, repetition_penalty=2.0, min_new_tokens=6)
    before = model.generation_config.to_dict()
    exam = ExactMatch(tasks={"reverse": (3,), "gcd": (1, 4)}, problems=8, batch_size=20, new_tokens=10)
    sitting = exam.open(CONTEXT, NONE)
    ended = set()
    widths = set()
    for part in sitting.questions:
        widths |= {int(row.sum()) - part.mask.shape[1] for row in part.mask}
        with torch.no_grad():
            replies = sitting._answer(model, part, lambda batch, new: None)
        for problem, reply in zip(part.problems, replies, strict=True):
            expected = by_hand(model, problem.prompt, 10)
            assert reply == (TOKENIZER.decode(expected[:-1]) if expected[-1] == END else None)
            ended.add(expected[-1] == END)
    assert len(widths) > 3, "no prompt was padded"
    assert ended == {True, False}, "the model always or never ended, so half of the rule went unseen"
    assert model.generation_config.to_dict() == before


def test_an_adapted_model_generates_as_well() -> None:
    loaded = wilful("llama")
    plain = copy.deepcopy(loaded.module)
    adapted = Lora(rank=2).attach(loaded.module, seed=0)
    exam = ExactMatch(tasks={"gcd": (1,)}, problems=30, new_tokens=6)
    one, charged = sit(exam, plain)
    other, charged_adapted = sit(exam, adapted)
    assert one == other
    assert all(torch.equal(a[0]["input_ids"], b[0]["input_ids"]) for a, b in zip(charged, charged_adapted, strict=True))


def test_models_that_cannot_answer_are_named() -> None:
    with pytest.raises(InputError, match="Linear has no method generate; evaluations/exact_match needs a model that generates text"):
        sit(EXAM, nn.Linear(1, 1))
    short = Transformer(hidden=16, layers=1, heads=2, context=10).build(0).module
    with pytest.raises(InputError, match="a prompt with its reply takes 12 positions and the model has 10"):
        sit(ExactMatch(tasks={"reverse": (2,)}, problems=50), short)
    with pytest.raises(InputError, match="evaluations/exact_match needs a tokenizer"):
        EXAM.open(Context(seed=0), NONE)


def test_seeds_draw_other_problems_of_the_held_out_side() -> None:
    from outlay.tasks.reasoning import problems

    def prompts(seed: int) -> list[str]:
        model = Scripted(lambda _: "</s>")
        sit(ExactMatch(tasks={"gcd": (2,)}, problems=40), model, Context(seed=seed, tokenizer=TOKENIZER))
        return model.prompts

    assert prompts(0) == prompts(0) != prompts(1)
    train = {problem.prompt for problem in problems("gcd", 2, split="train", count=1500, seed=0)}
    assert not train & {*prompts(0), *prompts(1)}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tasks": {"gdc": (1,)}}, r"there is no reasoning task 'gdc'; did you mean 'gcd'\?"),
        ({"tasks": {"gcd": (9,)}}, "levels of 'gcd' are different whole numbers from 1 to 4"),
        ({"tasks": {"gcd": (1,)}, "problems": 0}, "problems and batch_size must be > 0, found 0 and 128"),
        ({"tasks": {"gcd": (1,)}, "new_tokens": 0}, "new_tokens must be > 0 or None, found 0"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ExactMatch(**fields)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_contract(architecture: str) -> None:
    metrics = check_exam(EXAM, CONTEXT, NONE, wilful(architecture).module)
    assert set(metrics) == {"exact_match", "exact_match/gcd/1", "exact_match/reverse/1", "exact_match/reverse/2"}
