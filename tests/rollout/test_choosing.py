"""Choosing tokens: the distribution, its truncations, and one uniform number a token."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from outlay.rng import torch_generator
from outlay.rollout import Sampling, sample_stream
from outlay.rollout.choosing import StopText, choose, draw_uniforms

#: probabilities 0.5, 0.25, 0.125 and 0.125, not in order
CHANCES = torch.tensor([0.125, 0.5, 0.125, 0.25])
LOGITS = CHANCES.double().log()


def chosen(sampling: Sampling, *uniforms: float, logits: torch.Tensor = LOGITS) -> list[int]:
    tokens, _ = choose(logits.expand(len(uniforms), -1), sampling, torch.tensor(uniforms, dtype=torch.float64))
    return tokens.tolist()


def test_the_first_token_whose_cumulative_probability_exceeds_the_uniform_number() -> None:
    assert chosen(Sampling(), 0.0, 0.12, 0.13, 0.62, 0.63, 0.74, 0.76, 0.999) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_log_probabilities_are_those_of_the_whole_distribution_at_the_temperature() -> None:
    for sampling in (Sampling(), Sampling(top_k=2), Sampling(top_p=0.5)):
        tokens, logprobs = choose(LOGITS[None], sampling, torch.tensor([0.4], dtype=torch.float64))
        assert logprobs.tolist() == pytest.approx([math.log(CHANCES[tokens[0]])], abs=1e-12)
    # temperature 2: square roots of the chances, renormalised
    tokens, logprobs = choose(LOGITS[None], Sampling(temperature=2.0), torch.tensor([0.0], dtype=torch.float64))
    roots = CHANCES.double().sqrt()
    assert tokens.tolist() == [0]
    assert logprobs.tolist() == pytest.approx([math.log(roots[0] / roots.sum())], abs=1e-12)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.7), Sampling(temperature=0.0), Sampling(top_k=2)], ids=str)
def test_short_numbers_are_worked_on_in_single_precision(sampling: Sampling) -> None:
    logits = torch.randn(4, 30, generator=torch_generator(0, "short")).bfloat16()
    uniforms = torch.tensor([0.1, 0.4, 0.7, 0.9], dtype=torch.float64)
    for one, other in zip(choose(logits, sampling, uniforms), choose(logits.float(), sampling, uniforms), strict=True):
        assert one.dtype == other.dtype and torch.equal(one, other)


def test_temperature_zero_takes_the_likeliest_and_scores_it_at_one() -> None:
    tokens, logprobs = choose(LOGITS[None], Sampling(temperature=0.0), torch.tensor([0.99], dtype=torch.float64))
    assert tokens.tolist() == [1]
    assert logprobs.tolist() == pytest.approx([math.log(0.5)], abs=1e-12)


def test_top_k_and_top_p_leave_the_likeliest_in_falling_order_renormalised() -> None:
    # top_k = 2 leaves 1 (2/3) and 3 (1/3)
    assert chosen(Sampling(top_k=2), 0.0, 0.66, 0.67, 0.999) == [1, 1, 3, 3]
    # 0.5 alone is enough for 0.49; for 0.6 it takes 0.25 as well; for 0.8 one of 0.125, the earlier
    assert chosen(Sampling(top_p=0.49), 0.0, 0.999) == [1, 1]
    assert chosen(Sampling(top_p=0.6), 0.0, 0.66, 0.67, 0.999) == [1, 1, 3, 3]
    assert chosen(Sampling(top_p=0.8), 0.57, 0.58, 0.85, 0.86, 0.999) == [1, 3, 3, 0, 0]
    # top_k first: of 2/3 and 1/3, 0.66 needs the first alone
    assert chosen(Sampling(top_k=2, top_p=0.66), 0.0, 0.999) == [1, 1]
    assert chosen(Sampling(top_k=9), 0.13, 0.999) == chosen(Sampling(top_p=1.0, top_k=4), 0.13, 0.999)


def test_what_is_forbidden_is_never_chosen() -> None:
    logits = torch.tensor([-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf])
    last = float(draw_uniforms(0, 0, 0, 1).new_tensor(2.0).clamp_(max=1 - 2**-40))
    for sampling in (Sampling(), Sampling(top_k=4), Sampling(top_p=0.99)):
        assert chosen(sampling, 0.0, 0.499, 0.501, last, logits=logits) == [1, 1, 3, 3]


@pytest.mark.parametrize(
    "sampling",
    [Sampling(), Sampling(temperature=0.7), Sampling(temperature=1.5, top_k=5), Sampling(top_p=0.8), Sampling(0.8, 0.7, 6)],
    ids=str,
)
def test_frequencies_are_those_of_the_distribution(sampling: Sampling) -> None:
    from scipy.stats import chisquare
    from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = torch.randn(12, generator=torch_generator(0, "logits"), dtype=torch.float64) * 1.5
    scores = TemperatureLogitsWarper(sampling.temperature)(None, logits[None])
    if sampling.top_k:
        scores = TopKLogitsWarper(sampling.top_k)(None, scores)
    scores = TopPLogitsWarper(sampling.top_p)(None, scores) if sampling.top_p < 1 else scores
    expected = scores.softmax(-1)[0]
    uniforms = torch.cat([draw_uniforms(7, 0, sample, 500) for sample in range(40)])
    tokens, _ = choose(logits.expand(len(uniforms), -1), sampling, uniforms)
    counts = torch.bincount(tokens, minlength=12)
    assert not counts[expected == 0].any()
    kept = expected > 0
    assert chisquare(counts[kept].numpy(), (expected[kept] / expected[kept].sum() * len(uniforms)).numpy()).pvalue > 0.001


@given(st.integers(0, 2**31), st.integers(1, 40), st.sampled_from([Sampling(), Sampling(0.5), Sampling(top_k=3), Sampling(top_p=0.6)]))
def test_a_row_is_chosen_as_if_it_were_alone(seed: int, rows: int, sampling: Sampling) -> None:
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, 9, generator=draw)
    uniforms = torch.rand(rows, generator=draw, dtype=torch.float64)
    together, _ = choose(logits, sampling, uniforms)
    alone = [choose(logits[i : i + 1], sampling, uniforms[i : i + 1])[0] for i in range(rows)]
    assert torch.equal(together, torch.cat(alone))


def test_uniform_numbers_stay_so_far_below_one_that_the_last_token_is_not_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Highest:
        def random(self, count: int) -> np.ndarray:
            return np.full(count, 1 - 2**-53)  # the largest that numpy draws

    monkeypatch.setattr(np.random, "default_rng", lambda seed: Highest())
    drawn = draw_uniforms(0, 0, 0, 1)
    assert 1 - 2**-30 < drawn[0] <= 1 - 2**-40
    for total in (0.9, 1.0, 1 + 2**-52, 1.1):
        assert drawn[0] * total < total


def test_uniforms_are_a_stream_of_the_sample() -> None:
    drawn = draw_uniforms(3, 4, 5, 8)
    assert drawn.tolist() == np.random.default_rng(sample_stream(3, 4, 5)).random(8).tolist()
    assert torch.equal(draw_uniforms(3, 4, 5, 30)[:8], drawn)  # a longer limit draws the same and goes on
    others = [draw_uniforms(*where, 8) for where in ((4, 4, 5), (3, 5, 5), (3, 4, 6))]
    assert all(not torch.equal(drawn, other) for other in others)


class Words:
    """Tokens are pieces of text; ``<end>`` is a special one."""

    pieces = ("a", "b", "ab", "", "<end>", "é")

    def decode(self, tokens: list[int], skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> str:
        return "".join(self.pieces[token] for token in tokens if not (skip_special_tokens and self.pieces[token] == "<end>"))


def test_stop_strings_span_tokens_and_hide_in_them() -> None:
    stop = StopText(Words(), ["ba", "éé"])
    assert stop.ended([[0, 1], [1, 0], [2, 2], [1, 3, 0], [5], [0, 5, 5], [4], [0] * 50 + [1, 0]]) == [
        False, True, True, True, False, True, False, True,
    ]  # fmt: skip
    assert StopText(Words(), ["<end>"]).ended([[0, 4], [4, 0], [0]]) == [True, True, False]  # special tokens stay visible


def test_the_longest_stop_string_is_seen_whole_and_what_decoders_take_from_the_front_is_not_missed() -> None:
    assert StopText(Words(), ["b", "a" * 20]).ended([[0] * 19, [0] * 20, [4, *[0] * 20]]) == [False, True, True]

    class Sentence(Words):
        pieces = ("x", " y")

        def decode(self, tokens: list[int], skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> str:
            return super().decode(tokens, skip_special_tokens, clean_up_tokenization_spaces).removeprefix(" ")

    assert StopText(Sentence(), [" "]).ended([[1], [0, 0], [0, 1]]) == [False, False, True]
