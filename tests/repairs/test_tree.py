"""Tree: how worth goes up, where the search goes on, what it ends in, and that it finds what is rare sooner."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outlay.context import Context
from outlay.repairs import Group, Tree
from outlay.repairs.tree import Node, Search, backup, frontier_score, local_score
from outlay.rollout.base import Completion, Ended
from outlay.testing.repairs import Bench, Riddler

CONTEXT = Context(seed=0)


def chunk(*tokens: int, ended: Ended = "limit", logprob: float = -1.0) -> Completion:
    return Completion(0, 0, tokens, (logprob,) * len(tokens), ended)


# ---- rules -------------------------------------------------------------------------------------------------------------------------


def test_worth_goes_up_by_depth_and_never_spoils_the_way_to_a_right_answer() -> None:
    assert backup([0.0, 0.0, 0.0, 0.0], 1.0) == [0.25, 0.5, 0.75, 1.0]
    assert backup([0.0, 0.5, -0.5, 0.0], 1.0) == [0.25, 1.0, 0.75, 1.0]  # a negative value is set anew
    assert backup([0.2, -0.5, 0.0], -1.0) == pytest.approx([0.2, -0.5 - 2 / 3, -1.0])  # a positive one stays
    assert backup([0.0] * 20, -1.0)[:3] == pytest.approx([-0.1, -0.1, -0.15])  # the floor: 1/20 < 0.1
    assert backup([0.0] * 20, -1.0, floor=0.0)[0] == pytest.approx(-0.05)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=12), st.sampled_from([-1.0, 1.0]))
def test_signs_after_a_backup(values: list[float], worth: float) -> None:
    for before, after in zip(values, backup(values, worth), strict=True):
        assert after > 0 if worth > 0 or before > 0 else after < 0
        assert worth > 0 or before <= 0 or after == before


def test_the_frontier_score_is_the_sum_of_its_three_terms() -> None:
    spec = Tree(quality=0.4, uncertainty=0.3, deep=0.01)
    assert frontier_score(spec, 0.7, 1.5, 4, 16) == pytest.approx(0.4 * math.tanh(0.7) + 0.3 * 1.5 + 0.01 * 0.5)
    assert frontier_score(Tree(), -1.0, 100.0, 1, 1) == pytest.approx(-0.4 * math.tanh(1.0) + 0.01)
    assert local_score(2.0, 0.5, 9, 4) == pytest.approx(0.5 + 2 * math.sqrt(math.log(9) / 4))


# ---- a search ----------------------------------------------------------------------------------------------------------------------


def test_chunks_share_out_the_limit() -> None:
    for depth, limit, room, deepest in ((64, 16384, 256, 64), (64, 5, 1, 5), (3, 10, 4, 3)):
        search = Search(Tree(depth=depth), limit, 1)
        assert (search.room, search.deepest) == (room, deepest)
    search = Search(Tree(depth=3), 10, 1)
    for room in (4, 4, 2):
        assert search.room == room
        search.settle(search.grow([chunk(*range(room))]), [(0.0, True)] if room == 2 else [])
    assert search.done and len(search.answers[0][0].completion(0).tokens) == 10


def test_of_several_ends_the_right_then_the_surest_whole_wrong_one_is_kept() -> None:
    search = Search(Tree(children=4, depth=2), 4, 4)
    leaves = search.grow(
        [chunk(1, 0, ended="end", logprob=-0.1), chunk(2, 0, ended="end", logprob=-2.0), chunk(3, 3), chunk(4, 0, ended="stop")]
    )
    assert [leaf.tokens[0] for leaf in leaves] == [1, 2, 4]
    search.settle(leaves, [(0.0, True), (1.0, True), (0.0, True)])
    assert [(leaf.tokens[0], worth) for leaf, worth, _ in search.answers] == [(2, 1.0)]
    assert search.current.tokens == (3, 3)  # the only open node
    leaves = search.grow([chunk(5, 5, logprob=-0.01), chunk(6, 0, ended="end", logprob=-3.0), chunk(7, 0, ended="end", logprob=-2.0)])
    search.settle(leaves, [(0.0, True)] * 3)  # one at the limit, surest of all, and two that ended
    assert search.answers[1][0].tokens == (7, 0) and search.answers[1][0].completion(1).tokens == (3, 3, 7, 0)
    assert search.current is search.root  # nothing is open: from the question again
    leaves = search.grow([chunk(8, 0, ended="end", logprob=-0.5), chunk(9, 0, ended="end", logprob=-9.0)])
    search.settle(leaves, [(1.0, False), (0.0, True)])  # what nobody could judge is not right
    assert search.answers[2][0].tokens == (8, 0) and search.answers[2][2] is False


def test_values_and_visits_follow_the_rules() -> None:
    search = Search(Tree(children=2, depth=3), 3, 9)
    assert search.grow([chunk(0), chunk(1)]) == []
    search.settle([], [])
    first, second = search.root.children
    assert search.current is first and (first.value, first.visits, search.root.visits) == (0.0, 1, 0)
    search.settle(search.grow([chunk(0), chunk(1)]), [])
    leaves = search.grow([chunk(0), chunk(1)])
    search.settle(leaves, [(0.0, True)] * 2)
    assert [node.value for node in leaves[0].path] == [-0.25, -0.5, -0.75, -1.0] and leaves[0].visits == 1 and leaves[1].visits == 0
    assert (first.visits, first.mean) == (2, -0.25)
    # open: the root's second child (parent -0.25 over 1 visit) and the first child's second (parent -0.5 over 2); equal but for depth
    assert search.current is first.children[1]
    first.value = -9.0  # what counts is the parent's value
    assert max(search._open, key=search._frontier) is second
    assert second in search._open and not any(node.terminal or node.children for node in search._open)


def test_ends_and_full_nodes_are_never_gone_on_from() -> None:
    search = Search(Tree(children=2, depth=4), 4, 10**6)
    for _ in range(15):
        node = search.current
        assert not node.terminal and not node.children
        leaves = search.grow([chunk(0), chunk(1)])
        search.settle(leaves, [(0.0, True)] * len(leaves))
    assert search.current is search.root and search.root.children  # 15 inner nodes: all are full


# ---- as a repair -------------------------------------------------------------------------------------------------------------------


class Noting(Bench):
    def write(self, prompts, samples, limit):  # type: ignore[no-untyped-def]
        self.__dict__.setdefault("written", []).append((list(prompts), samples, limit))
        return super().write(prompts, samples, limit)


def failed(count: int = 2) -> list[Group]:
    groups = Bench(levels=(4,)).ask(count)
    assert all(group.failed for group in groups)
    return groups


def test_one_child_and_one_chunk_are_independent_samples() -> None:
    groups, shop = failed(), Noting(policy=Riddler(skill=1.0, steep=0.0))
    came = Tree(children=1, depth=1).open(CONTEXT).mend(groups, 2, shop)
    prompts = [group.attempts[0].prompt for group in groups]
    assert shop.__dict__["written"] == [(prompts, 1, 5)] * 8 and shop.charged == 16 and shop.judged == 16
    fresh = Bench(policy=Riddler(skill=1.0, steep=0.0))
    plain = [one for _ in range(8) for one in fresh.write(prompts, 1, 5)]
    for number, group in enumerate(came):
        assert [one.completion.tokens for one in group.attempts] == [plain[2 * i + number][0].tokens for i in range(8)]


def test_answers_are_whole_under_the_plain_prompt_with_the_policys_own_log_probabilities() -> None:
    policy = Riddler(skill=0.5, steep=0.0)
    groups, shop = failed(), Bench(policy=policy)
    came = Tree(children=2, depth=3).open(CONTEXT).mend(groups, 2, shop)
    for before, after in zip(groups, came, strict=True):
        assert len(after.attempts) == 8 and after.varied and after.arm == before.arm and after.hinted == 0
        for one in after.attempts:
            assert one.prompt == before.attempts[0].prompt and one.completion.ended == "end" and len(one.completion.tokens) == 5
            assert sum(one.completion.logprobs) == pytest.approx(policy.logprob(one.prompt, one.completion.tokens))


def test_a_search_that_was_cut_off_changes_nothing() -> None:
    groups = failed()
    whole = Bench(policy=Riddler(skill=0.5, steep=0.0))
    Tree(children=2, depth=3).open(CONTEXT).mend(groups, 2, whole)
    short = Bench(policy=Riddler(skill=0.5, steep=0.0), rollouts=20)
    assert Tree(children=2, depth=3).open(CONTEXT).mend(groups, 2, short) == groups and short.charged == 20 < whole.charged


def test_rare_successes_are_stored_and_come_back_when_their_question_fails() -> None:
    mending = Tree(rare=0.25).open(CONTEXT)
    group = failed(1)[0]
    right = Bench(policy=Riddler(skill=60.0, steep=0.0)).answer([group.question], 8)[0].attempts
    rare = replace(group, attempts=[group.attempts[0], *right[:2], *group.attempts[3:]])
    often = replace(group, question=replace(group.question, text="other"), attempts=[*right[:3], *group.attempts[3:]])
    assert mending.mend([rare, often], 2, Bench(rollouts=0)) == [rare, often]
    shop = Bench()
    came = mending.mend([group], 1, shop)[0]
    assert shop.charged == 0 and came.values == [1.0] * 2 + [0.0] * 6 and came.attempts[2:] == group.attempts[2:]
    small = replace(group, attempts=group.attempts[:2])
    assert mending.mend([small], 1, shop)[0].values == [1.0, 0.0]  # one of its own stays
    assert [one.replayed for one in came.attempts] == [True] * 2 + [False] * 6
    assert [(one.completion.tokens, one.completion.logprobs) for one in came.attempts[:2]] == [
        (one.completion.tokens, one.completion.logprobs) for one in right[:2]
    ]
    assert [text for text, _ in mending.state_dict()["stored"]] == [group.question.text]


def test_the_latest_questions_are_remembered_and_a_rate_of_zero_stores_none() -> None:
    groups = failed(3)
    right = [Bench(policy=Riddler(skill=60.0, steep=0.0)).answer([group.question], 1)[0].attempts[0] for group in groups]
    rare = [replace(group, attempts=[one, *group.attempts[1:]]) for group, one in zip(groups, right, strict=True)]
    mending = Tree(remembered=2).open(CONTEXT)
    for group in rare:
        mending.mend([group], 1, Bench(rollouts=0))
    assert [text for text, _ in mending.state_dict()["stored"]] == [group.question.text for group in groups[1:]]
    mending.mend([rare[1]], 1, Bench(rollouts=0))  # stored anew: it is the latest now
    mending.mend([groups[2]], 1, Bench(rollouts=0))  # replayed: it is not
    assert [text for text, _ in mending.state_dict()["stored"]] == [groups[2].question.text, groups[1].question.text]
    forgetful = Tree(rare=0.0).open(CONTEXT)
    forgetful.mend(rare, 3, Bench(rollouts=0))
    assert forgetful.state_dict() == {"stored": []}


# ---- what it is for ----------------------------------------------------------------------------------------------------------------

DEEP = 7


def by_frontier(target: tuple[int, ...]) -> int:
    """Return the chunks written until the search has found the only right leaf of a binary tree."""
    search, chunks = Search(Tree(children=2, depth=DEEP), DEEP, 10**9), 0
    while True:
        leaves = search.grow([chunk(0), chunk(1)])
        chunks += 2
        if any(leaf.completion(0).tokens == target for leaf in leaves):
            return chunks
        search.settle(leaves, [(0.0, True)] * len(leaves))


def from_the_root(target: tuple[int, ...]) -> int:
    """The same by going down from the root after every expansion, by Q + 2 sqrt(ln N_parent / N_child) among what is not used up."""
    root, spent, chunks = Node(None, 0, visits=1), set[int](), 0
    while True:
        node = root
        while node.children:
            among = [child for child in node.children if id(child) not in spent]
            parent = node
            node = max(among, key=lambda child: local_score(2.0, child.mean, parent.visits, child.visits))
        node.children = [Node(node, node.depth + 1, (token,), (-1.0,), terminal=node.depth + 1 == DEEP, visits=1) for token in (0, 1)]
        chunks += 2
        ends = [child for child in node.children if child.terminal]
        if any(leaf.completion(0).tokens == target for leaf in ends):
            return chunks
        values = backup([one.value for one in node.path], -1.0) if ends else [one.value for one in node.path]
        for one, value in zip(node.path, values, strict=True):
            one.value, one.visits = value, one.visits + 1
        spent |= {id(leaf) for leaf in ends}
        for one in reversed(node.path):
            if all(id(child) in spent for child in one.children):
                spent.add(id(one))


def test_the_frontier_finds_a_rare_leaf_sooner_than_uct_from_the_root_and_that_sooner_than_sampling() -> None:
    targets = [tuple(int(bit) for bit in f"{number:0{DEEP}b}") for number in range(2**DEEP)]
    frontier = sum(map(by_frontier, targets)) / len(targets)
    uct = sum(map(from_the_root, targets)) / len(targets)
    sampling = DEEP * 2.0**DEEP  # a geometric number of answers of so many chunks
    assert frontier < 0.92 * uct and uct < 0.25 * sampling, (frontier, uct, sampling)
