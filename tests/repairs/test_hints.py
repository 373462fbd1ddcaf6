"""Scaffold, hint prefix, guide, expert failures and easier questions: who is helped, how, at what price, and that it pays where it should."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import pytest
import torch

from outlay.advantages import Group as GroupAdvantage
from outlay.context import Context
from outlay.prompts.base import Question
from outlay.repairs import Attempt, Drop, Easier, ExpertFailures, Group, Guide, HintPrefix, Repair, Scaffold
from outlay.repairs.failed import hinted, hints_of, matched, right
from outlay.testing.repairs import Bench, Riddler, riddle

CONTEXT = Context(seed=0)
#: right where the prompt tells the symbol, else wrong
LITERAL = Riddler(skill=-60.0, steep=0.0, trust=120.0)
SURE = Riddler(skill=60.0, steep=0.0, trust=0.0)


@dataclass
class Noting(Bench):
    """A workshop that notes what it is asked."""

    questions: list[Question] = field(default_factory=list)

    def answer(self, questions: Sequence[Question], samples: int, begun: Sequence[str] | None = None) -> list[Group]:
        self.questions += questions
        return super().answer(questions, samples, begun)


def shop(policy: Riddler = LITERAL, **settings: float) -> Noting:
    return replace(Noting(policy=policy, levels=(0,)), **settings)


def failed(count: int = 1, length: int = 4, samples: int = 8) -> list[Group]:
    groups = Bench(policy=LITERAL, levels=(0,), length=length, limit=length + 1, samples=samples).ask(count)
    assert all(group.failed for group in groups)
    return groups


def mend(repair: Repair, groups: Sequence[Group], where: Bench) -> list[Group]:
    return repair.open(CONTEXT).mend(groups, len(groups), where)


def asked(group: Group, **extra: object) -> Group:
    return replace(group, question=replace(group.question, extra={**group.question.extra, **extra}))


# ---- hints -------------------------------------------------------------------------------------------------------------------------


def test_hints_show_one_text_more_a_level_and_each_list_begins_anew() -> None:
    assert hints_of(Question("?", extra={"hints": ["a", "b", "c"]}), 8) == ["a", "a\nb", "a\nb\nc"]
    assert hints_of(Question("?", extra={"hints": [["a", "b"], ["c"], "d"]}), 8) == ["a", "a\nb", "c", "d"]
    assert hints_of(Question("?", "12345678"), 3) == ["12", "1234", "123456"]
    assert hints_of(Question("?", "12"), 8) == ["1", "12"]  # levels that show the same, or nothing, are left out
    assert hints_of(Question("?"), 8) == []


def test_braces_in_questions_and_hints_are_left_alone() -> None:
    assert hinted(Question("{hint} {x}"), "{question}", "{question}|{hint}").text == "{hint} {x}|{question}"
    with pytest.raises(ValueError, match="template"):
        Scaffold(template="{question}")


def test_answers_are_matched_with_the_questions_that_were_not_cut_off() -> None:
    questions = [riddle(place, 0) for place in range(3)]
    groups = [Group(question, []) for question in questions]
    assert matched(questions, [groups[0], groups[2]]) == [groups[0], None, groups[2]]
    assert matched(questions, []) == [None] * 3


# ---- scaffold ----------------------------------------------------------------------------------------------------------------------


def test_exactly_one_answer_is_replaced_by_the_lowest_success_with_its_prompt() -> None:
    group = failed()[0]
    bits = group.question.reference
    group = asked(group, hints=[bits[0], bits[1:], "and that was all"])
    where = shop()
    came = mend(Scaffold(), [group], where)[0]
    assert where.charged == 3 and where.calls == ["answer"]
    assert came.values == [1.0] + [0.0] * 7 and came.attempts[1:] == group.attempts[1:] and came.hinted == 1 / 8
    # levels 2 and 3 both tell all: the lower one helps
    assert came.attempts[0].prompt == where.encode(f"{group.question.text}\n{bits[0]}\n{bits[1:]}\n")
    assert came.question == group.question and group.values == [0.0] * 8


@pytest.mark.parametrize(("unbiased", "right", "wrong"), [(False, 2.6458, -0.3780), (True, 2.4749, -0.3536)])
def test_the_mended_group_has_the_advantages_of_one_success_among_eight(unbiased: bool, right: float, wrong: float) -> None:
    came = mend(Scaffold(), failed(), shop())[0]
    batch = {
        "reward": torch.tensor(came.values, dtype=torch.float64), "group": torch.zeros(8, dtype=torch.long),
        "labels": torch.ones(8, 2, dtype=torch.long), "judged": torch.ones(8, dtype=torch.bool),
    }  # fmt: skip
    found = GroupAdvantage(unbiased=unbiased, epsilon=0.0).of_rows(batch["reward"], batch)
    assert found.tolist() == pytest.approx([right] + [wrong] * 7, abs=1e-4)
    share = math.sqrt(7 / 8) if unbiased else 1.0
    assert found[0].item() == pytest.approx(share * math.sqrt(7)) and found[1].item() == pytest.approx(-share / math.sqrt(7))


def test_nobody_is_helped_before_the_exemption_ends() -> None:
    groups = failed(2)
    early = shop(progress=0.0999)
    assert mend(Scaffold(exempt=0.1), groups, early) == groups and early.charged == 0
    late = shop(progress=0.1)
    assert all(group.varied for group in mend(Scaffold(exempt=0.1), groups, late)) and late.charged == 2 * 4


def test_without_hints_prefixes_of_the_reference_are_tried_and_where_none_helps_nothing_changes() -> None:
    group = asked(failed()[0], hints=None)
    where = shop()
    assert mend(Scaffold(levels=3), [group], where) == [group]
    assert [one.text.split("\n")[1] for one in where.questions] == [group.question.reference[:count] for count in (1, 2, 3)]
    lost = replace(group, question=replace(group.question, reference=""))
    assert mend(Scaffold(), [lost], shop(rollouts=0)) == [lost]


def test_only_failed_groups_are_touched_and_only_those_that_are_wanted() -> None:
    varied = Bench(levels=(1,)).ask(1)[0]
    assert varied.varied
    groups = [*failed(2), varied, *failed(3)[2:]]
    where = shop()
    came = Scaffold().open(CONTEXT).mend(groups, 3, where)
    assert [group.varied for group in came] == [True] * 3 and came[2] is varied and where.charged == 2 * 4


def test_a_ladder_that_was_cut_off_helps_nobody() -> None:
    groups = failed(2)
    came = mend(Scaffold(), groups, shop(rollouts=7))
    assert came[0].varied and came[1] == groups[1]


class Gappy(Noting):
    """A workshop whose budget ends so that the first question is the one without answers."""

    def answer(self, questions: Sequence[Question], samples: int, begun: Sequence[str] | None = None) -> list[Group]:
        groups = super().answer(questions, samples, begun)[1:]
        self.cut = True
        return groups


def test_whether_a_lower_level_would_have_helped_must_be_known() -> None:
    group = failed()[0]
    bits = group.question.reference
    for repair, extra in ((Scaffold(), {"hints": ["?", bits]}), (ExpertFailures(), {})):
        policy = LITERAL if extra else SURE
        one = asked(group, **extra)
        assert mend(repair, [one], shop(policy=policy))[0].varied
        assert mend(repair, [one], Gappy(policy=policy, levels=(0,))) == [one]


def test_what_nobody_could_judge_is_no_success() -> None:
    attempt = failed()[0].attempts[0]
    assert right(replace(attempt, value=1.0)) and not right(replace(attempt, value=1.0, judged=False)) and not right(attempt)


def test_nothing_is_asked_for_groups_of_a_second_size_after_the_end() -> None:
    groups = failed(1, samples=2) + failed(2)[1:]
    for repair in (Guide(), HintPrefix(), Easier()):
        where = Bench(policy=Riddler(skill=-60.0, steep=0.0), rollouts=0)
        came = mend(repair, [replace(one, question=riddle(one.question.place, 3)) for one in groups], where)
        assert where.cut and not where.late and all(one.failed for one in came)


# ---- hint prefix -------------------------------------------------------------------------------------------------------------------


def test_a_group_is_generated_again_at_most_three_times_with_growing_prefixes() -> None:
    group = failed(length=8)[0]
    where = shop(length=8, limit=9)
    came = mend(HintPrefix(), [group], where)[0]
    shown = [one.text for one in where.questions]
    assert [len(text.split("\n")[2]) for text in shown] == [round(share * 8) for share in (0.25, 0.5, 0.75)] == [2, 4, 6]
    assert where.charged == 3 * 8 and came.failed and came.hinted == 1.0
    assert {one.prompt for one in came.attempts} == {where.encode(shown[-1])}
    assert came.question == group.question and shown[0].startswith(group.question.text + "\nThe following text is the beginning")


def test_who_succeeds_is_not_asked_again() -> None:
    groups = failed(2)
    groups[1] = asked(replace(groups[1], question=replace(groups[1].question, reference="")))
    where = shop()
    came = mend(HintPrefix(shares=(0.5, 0.9, 1.0)), groups, where)
    # round(0.9 * 4) = 4 symbols tell all; without a reference there is nothing to show
    assert where.charged == 2 * 8 and came[0].values == [1.0] * 8 and came[1] == groups[1]
    assert len(came[0].attempts) == 8 and came[0].arm == groups[0].arm


def test_groups_of_other_sizes_keep_them() -> None:
    groups = failed(1, samples=3) + failed(2)[1:]
    came = mend(HintPrefix(shares=(1.0,)), groups, shop())
    assert [len(group.attempts) for group in came] == [3, 8] and all(min(group.values) == 1 for group in came)


def test_shares_must_rise() -> None:
    for shares in ((), (0.5, 0.25), (0.0, 0.5), (0.5, 1.1)):
        with pytest.raises(ValueError, match="shares"):
            HintPrefix(shares=shares)


# ---- guide -------------------------------------------------------------------------------------------------------------------------

HALF = Riddler(skill=-1.0, steep=0.0, trust=2.5)


def test_guided_answers_take_the_first_places_whatever_they_are_worth_under_the_plain_prompt() -> None:
    group = failed(length=5)[0]
    where = shop(policy=HALF, length=5, limit=6)
    came = mend(Guide(), [group], where)[0]
    plain = where.encode(group.question.text)
    assert where.charged == 4 and came.attempts[4:] == group.attempts[4:] and came.hinted == 0.5
    assert {one.prompt for one in came.attempts} == {plain}
    guided = where.encode(where.questions[0].text)
    assert where.questions[0].text.count("\n") == 5  # all hints are shown
    for one in came.attempts[:4]:
        assert sum(one.completion.logprobs) == pytest.approx(HALF.logprob(guided, one.completion.tokens))
    whole = mend(Guide(share=1.0), [group], shop(policy=HALF, length=5, limit=6))[0]
    assert whole.hinted == 1.0 and not set(map(id, whole.attempts)) & set(map(id, group.attempts))


def test_without_hints_the_first_part_of_the_reference_guides() -> None:
    group = asked(failed()[0], hints=None)
    where = shop()
    mend(Guide(portion=0.75), [group], where)
    assert where.questions[0].text == f"{group.question.text}\n{group.question.reference[:3]}\n"
    mute = replace(group, question=replace(group.question, reference=""))
    assert mend(Guide(), [mute], shop(rollouts=0)) == [mute]


def test_the_ratio_of_plain_over_guided_makes_expectations_right() -> None:
    question = riddle(3, 0, 5)
    guided = tuple(map(ord, hinted(question, question.reference[:3], "{question}\n{hint}\n").text))
    plain = tuple(map(ord, question.text))
    # what the repair hands on: the plain prompt, and the guided log probabilities
    group = failed(4, length=5)[3]
    came = mend(Guide(share=1.0, portion=0.6), [asked(group, hints=None)], shop(policy=HALF, length=5, limit=6))[0]
    ratios = {
        one.completion.tokens[:5]: HALF.logprob(one.prompt, one.completion.tokens) - sum(one.completion.logprobs) for one in came.attempts
    }

    def f(tokens: tuple[int, ...]) -> float:
        return sum(chr(token) == right for token, right in zip(tokens, question.reference, strict=True)) ** 2.0

    every = list(product((48, 49), repeat=5))
    for tokens, ratio in ratios.items():
        assert ratio == pytest.approx(HALF.logprob(plain, tokens) - HALF.logprob(guided, tokens))
    expected = sum(math.exp(HALF.logprob(plain, tokens)) * f(tokens) for tokens in every)
    reweighted = sum(
        math.exp(HALF.logprob(guided, tokens)) * math.exp(HALF.logprob(plain, tokens) - HALF.logprob(guided, tokens)) * f(tokens)
        for tokens in every
    )
    bare = sum(math.exp(HALF.logprob(guided, tokens)) * f(tokens) for tokens in every)
    assert reweighted == pytest.approx(expected) and abs(bare - expected) > 1


def test_guidance_that_is_not_heeded_has_ratio_one() -> None:
    deaf = Riddler(skill=-1.0, steep=0.0, trust=0.0)
    came = mend(Guide(), failed(), shop(policy=deaf))[0]
    for one in came.attempts[:4]:
        assert sum(one.completion.logprobs) == pytest.approx(deaf.logprob(one.prompt, one.completion.tokens))


# ---- expert failures ---------------------------------------------------------------------------------------------------------------


def test_the_answer_that_goes_on_from_the_shortest_prefix_joins_and_only_it_is_trained() -> None:
    group = failed()[0]
    bits = group.question.reference
    where = shop(policy=SURE)
    came = mend(ExpertFailures(), [group], where)[0]
    assert where.charged == 3 and came.values == [1.0] + [0.0] * 7 and came.hinted == 1 / 8
    first = came.attempts[0]
    assert first.prompt == where.encode(group.question.text + bits[:1])
    assert where.decode(first.completion.tokens[:-1]) == bits[1:]
    both = mend(ExpertFailures(joined=2), [group], shop(policy=SURE))[0]
    assert [len(one.prompt) for one in both.attempts[:2]] == [len(group.question.text) + count for count in (1, 2)] and sum(
        both.values
    ) == 2


def test_prefixes_that_were_wrong_already_lead_nowhere_and_without_failures_nothing_is_asked() -> None:
    group = failed()[0]
    wrong = group.question.reference.translate({48: 49, 49: 48})
    hopeless = asked(group, failures=[wrong])
    assert mend(ExpertFailures(), [hopeless], shop(policy=SURE)) == [hopeless]
    none = asked(group, failures=[])
    assert mend(ExpertFailures(), [none], shop(rollouts=0)) == [none]


def test_prefixes_that_several_failures_share_are_gone_on_from_once() -> None:
    group = failed()[0]
    bits = group.question.reference
    where = shop(policy=SURE)
    mend(ExpertFailures(), [asked(group, failures=[bits[:3] + "x", bits[:3] + "y", bits[:1] + "zzz"])], where)
    assert where.charged == 3 + 2


def test_going_on_that_was_cut_off_changes_nothing() -> None:
    groups = failed(2)
    came = mend(ExpertFailures(), groups, shop(policy=SURE, rollouts=5))
    assert came[0].varied and came[1] == groups[1]


# ---- easier ------------------------------------------------------------------------------------------------------------------------


def test_an_easier_question_takes_the_place_of_a_failed_one() -> None:
    steep = Riddler(skill=61.0, steep=60.0)  # right at level 0, at times at level 1, wrong above
    group = Bench(policy=steep, levels=(3,)).ask(1)[0]
    assert group.failed
    one, two, three = (Noting(policy=steep) for _ in range(3))
    assert mend(Easier(), [group], one)[0].question.extra["level"] == 2 and one.charged == 8
    came = mend(Easier(steps=2), [group], two)[0]
    assert came.question.extra["level"] == 1 and came.varied and two.charged == 16 and came.hinted == 0
    # what succeeds is not made easier still
    assert mend(Easier(steps=3), [group], three)[0].question.extra["level"] == 1 and three.charged == 16
    bottom = failed()[0]
    assert mend(Easier(), [bottom], shop(rollouts=0)) == [bottom]


# ---- what it is for ----------------------------------------------------------------------------------------------------------------


def learnt(repair: Repair, seed: int, rollouts: int = 2000, rate: float = 0.5) -> float:
    """Train skill and trust by group-normalised policy gradients on questions with success 1e-3; return the plain success at the end."""
    policy = Riddler(skill=math.log(0.25 / 0.75), steep=0.0, trust=2.2)
    where = Bench(policy=policy, levels=(0,), length=5, limit=6, seed=seed, rollouts=rollouts)
    mending = repair.open(CONTEXT)
    while not where.cut:
        where.progress = where.charged / rollouts
        groups = mending.mend(where.ask(8), 8, where)
        moves = [(0.0, 0.0)]
        for group in groups:
            spread = math.sqrt(group.rate * (1 - group.rate))
            moves += [slope(policy, one, (one.value - group.rate) / spread) for one in group.attempts if spread]
        policy.skill += rate * sum(skill for skill, _ in moves) / 64
        policy.trust += rate * sum(trust for _, trust in moves) / 64
    assert where.charged == rollouts
    return policy.chance(riddle(0, 0, 5), False) ** 5


def slope(policy: Riddler, one: Attempt, advantage: float) -> tuple[float, float]:
    """Return A sum_t ratio_t d log pi(o_t) / d(skill, trust), the ratio over the policy that wrote: 1 but for guided answers."""
    skill = trust = 0.0
    for (good, chance, told), written in zip(policy.steps(one.prompt, one.completion.tokens), one.completion.logprobs, strict=False):
        error = (chance if good else 1 - chance) / math.exp(written) * (good - chance)
        skill, trust = skill + advantage * error, trust + advantage * error * told
    return skill, trust


def test_help_pays_on_hard_questions_at_equal_rollouts() -> None:
    repairs = {"plain": Drop(), "scaffold": Scaffold(exempt=0.0), "prefix": HintPrefix(), "guide": Guide()}
    found = {name: sum(learnt(repair, seed) for seed in range(3)) / 3 for name, repair in repairs.items()}
    assert found.pop("plain") < 0.01 and min(found.values()) > 0.7, found
