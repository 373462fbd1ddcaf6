"""Tree: a failed question is searched, chunk by chunk, and the answers that the search ends in replace the group."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from outlay.catalog import Paper
from outlay.context import Context
from outlay.repairs.base import Attempt, Group, Workshop
from outlay.repairs.failed import OfFailed, right
from outlay.rollout.base import Completion, Ended
from outlay.schedules.base import require


@dataclass(frozen=True)
class Tree:
    """Search failed questions by a tree of chunks; all that is written is charged, about ``children`` answers for each one that is kept.

    A node is a chunk of ceil(limit / depth) tokens. The node at hand gets ``children`` chunks in one call. A child that ends, or reaches the limit, is
    judged, and of those in one call one is kept as an answer: a right one first, then a wrong one that ended, then one at the limit; among
    equals the one that the model was surest of. Its worth, 1 if right and else -1, goes up its path (``backup``). While nothing ends, the search
    follows the child with the largest Q + explore sqrt(ln N_parent / N_child), Q = value / visits; after an end it goes on from the open node
    with the largest ``frontier_score``, wherever it lies, and from the question itself once none is open. It stops after as many answers as
    the group had, and they replace the group, under the plain prompt. With one child and depth 1 this is sampling.

    The paper searches every question of its batches; here failed groups alone are searched, since for others there is a signal already. Its
    advantages for single tokens, the nodes' values, are not handed on: the objective works out its own. Answers of a search are not
    independent samples; of a success rate they say nothing.

    Right answers to questions solved at a rate in (0, ``rare``] are stored. When such a question fails again it is not searched: stored answers
    replace its first ones. That needs questions that come again.

    Args:
        children: chunks of a node, > 0.
        depth: chunks of an answer, > 0; of one token each where the limit is lower. The paper cuts 16384 tokens into 64.
        explore: weight of the exploration among siblings, >= 0.
        quality: weight of tanh(Q) of a node's parent in the frontier score, >= 0.
        uncertainty: weight of a chunk's mean surprisal in nats a token, >= 0; 0 leaves it out, as released.
        deep: weight of sqrt(depth / largest depth), >= 0.
        floor: least share of its worth that an answer passes up, in [0, 1].
        rare: success rate up to which right answers are stored, in [0, 1]; 0 stores none.
        remembered: questions whose answers are stored, the latest, > 0.
    """

    title: ClassVar[str] = "Tree search (DeepSearch)"
    paper: ClassVar[Paper | None] = Paper(
        "2509.25454",
        "DeepSearch: Overcome the Bottleneck of Reinforcement Learning with Verifiable Rewards via Monte Carlo Tree Search",
        2025,
    )

    children: int = 8
    depth: int = 64
    explore: float = 2.0
    quality: float = 0.4
    uncertainty: float = 0.0
    deep: float = 0.01
    floor: float = 0.1
    rare: float = 0.25
    remembered: int = 1024

    def __post_init__(self) -> None:
        for name in ("children", "depth", "remembered"):
            require(getattr(self, name) > 0, f"{name} must be > 0, found {getattr(self, name)}")
        for name in ("explore", "quality", "uncertainty", "deep"):
            require(getattr(self, name) >= 0, f"{name} must be >= 0, found {getattr(self, name)}")
        for name in ("floor", "rare"):
            require(0 <= getattr(self, name) <= 1, f"{name} must lie in [0, 1], found {getattr(self, name)}")

    def open(self, context: Context) -> Searching:
        """Return the repair."""
        return Searching(self)


# ---- pure rules --------------------------------------------------------------------------------------------------------------------


def backup(values: Sequence[float], worth: float, floor: float = 0.1) -> list[float]:
    """Return the values of the nodes on a path, root first, after its end turned out to be worth something.

    With w = max((depth + 1) / (depth of the end + 1), floor): a value of the same sign, or 0, becomes value + w worth; a negative one that meets a
    positive worth becomes w worth; a positive one that meets a negative worth stays, so that the way to a right answer is never made worse.

    Args:
        values: of the path's nodes, the end's last.
        worth: of the end.
        floor: least w.
    """
    found = []
    for depth, value in enumerate(values):
        moved = max((depth + 1) / len(values), floor) * worth
        if value * worth >= 0:
            found.append(value + moved)
        else:
            found.append(moved if value < 0 else value)
    return found


def frontier_score(spec: Tree, quality: float, surprisal: float, depth: int, deepest: int) -> float:
    """Return F = quality tanh(Q of the parent) + uncertainty surprisal + deep sqrt(depth / deepest).

    Args:
        spec: the weights.
        quality: value / visits of the node's parent.
        surprisal: mean -log probability of the node's chunk, nats a token.
        depth: of the node; the root's is 0.
        deepest: largest depth.
    """
    return spec.quality * math.tanh(quality) + spec.uncertainty * surprisal + spec.deep * math.sqrt(depth / deepest)


def local_score(explore: float, quality: float, siblings: int, visits: int) -> float:
    """Return Q + explore sqrt(ln N_parent / N_child), N_parent the visits of all siblings."""
    return quality + explore * math.sqrt(math.log(siblings) / visits)


# ---- a search ----------------------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Node:
    """A chunk, and what is known of going on from it."""

    parent: Node | None
    depth: int
    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    ended: Ended = "limit"
    terminal: bool = False
    value: float = 0.0
    visits: int = 0
    children: list[Node] = field(default_factory=list)

    @property
    def path(self) -> list[Node]:
        """The nodes from the root to this one."""
        return [*(self.parent.path if self.parent else []), self]

    @property
    def mean(self) -> float:
        """Value a visit; 0 without one."""
        return self.value / self.visits if self.visits else 0.0

    @property
    def surprisal(self) -> float:
        """Mean -log probability of the chunk's tokens."""
        return -sum(self.logprobs) / max(1, len(self.logprobs))

    def completion(self, sample: int) -> Completion:
        """Return what the path wrote."""
        path = self.path
        tokens = tuple(token for node in path for token in node.tokens)
        return Completion(0, sample, tokens, tuple(logprob for node in path for logprob in node.logprobs), self.ended)


class Search:
    """The tree of one question.

    Args:
        spec: the rules.
        limit: new tokens of an answer, > 0.
        wanted: answers to end in, > 0.
    """

    def __init__(self, spec: Tree, limit: int, wanted: int) -> None:
        self._spec, self._limit, self._wanted = spec, limit, wanted
        self._step = -(-limit // min(spec.depth, limit))
        self.deepest = -(-limit // self._step)
        self.root = Node(None, 0)
        self.current = self.root
        self.answers: list[tuple[Node, float, bool]] = []
        self._open: list[Node] = []
        self._young: list[Node] = []

    @property
    def done(self) -> bool:
        """Whether there are enough answers."""
        return len(self.answers) == self._wanted

    @property
    def room(self) -> int:
        """Tokens of the next chunk."""
        return min(self._step, self._limit - self.current.depth * self._step)

    def grow(self, written: Sequence[Completion]) -> list[Node]:
        """Put chunks under the node at hand and return those that end an answer, for ``settle``."""
        node = self.current
        if node in self._open:
            self._open.remove(node)
        young = [Node(node, node.depth + 1, one.tokens, one.logprobs, one.ended) for one in written]
        for child in young:
            child.terminal = child.ended in ("end", "stop") or child.depth == self.deepest
            child.visits = int(not child.terminal)
        node.children += young
        self._open += [child for child in young if not child.terminal]
        self._young = young
        return [child for child in young if child.terminal]

    def settle(self, leaves: Sequence[Node], verdicts: Sequence[tuple[float, bool]]) -> None:
        """Take up what the ends are worth, keep one as an answer, and choose the node to go on from."""
        if leaves:
            rows = list(zip(leaves, verdicts, strict=True))
            leaf, (worth, judged) = min(rows, key=lambda row: (_rank(*row), row[0].surprisal))
            self.answers.append((leaf, worth, judged))
            for node, value in zip(
                leaf.path, backup([node.value for node in leaf.path], 1.0 if judged and worth > 0 else -1.0, self._spec.floor), strict=True
            ):
                node.value = value
                node.visits += 1
            self.current = max(self._open, key=self._frontier, default=self.root)
        else:
            siblings = sum(child.visits for child in self.current.children if not child.terminal)
            self.current = max(self._young, key=lambda child: local_score(self._spec.explore, child.mean, siblings, child.visits))

    def _frontier(self, node: Node) -> float:
        parent = node.parent or node
        return frontier_score(self._spec, parent.mean, node.surprisal, node.depth, self.deepest)


def _rank(leaf: Node, verdict: tuple[float, bool]) -> int:
    worth, judged = verdict
    return 0 if judged and worth > 0 else 1 if leaf.ended in ("end", "stop") else 2


@dataclass
class Searching(OfFailed):
    """Remember right answers to questions that are seldom solved."""

    spec: Tree
    _stored: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def mend(self, groups: Sequence[Group], wanted: int, shop: Workshop) -> list[Group]:
        """Return the groups with the failed ones searched, and store what was right and rare."""
        found = super().mend(groups, wanted, shop)
        for group in found:
            self._remember(group)
        return found

    def mended(self, failed: Sequence[Group], shop: Workshop) -> list[Group]:
        """Return stored answers where there are some, else what the searches end in; a search that was cut off changes nothing."""
        searches = {
            i: Search(self.spec, shop.limit, len(group.attempts))
            for i, group in enumerate(failed)
            if group.question.text not in self._stored
        }
        while not shop.cut and self._advance(failed, searches, shop):
            pass
        found = []
        for i, group in enumerate(failed):
            if i not in searches:
                found.append(self._recalled(group))
            else:
                found.append(_trained(group, searches[i]) if searches[i].done else group)
        return found

    def _advance(self, failed: Sequence[Group], searches: Mapping[int, Search], shop: Workshop) -> bool:
        """Give every search one more node, and return whether any was left to."""
        rooms = {i: search.room for i, search in searches.items() if not search.done}
        for room in sorted(set(rooms.values())):
            numbers = [i for i in rooms if rooms[i] == room]
            prompts = [failed[i].attempts[0].prompt + searches[i].current.completion(0).tokens for i in numbers]
            written = [] if shop.cut else shop.write(prompts, self.spec.children, room)
            if not written:
                return False
            for i, chunks in zip(numbers, written, strict=True):
                leaves = searches[i].grow(chunks)
                if leaves and shop.cut:
                    return False
                texts = [_text(leaf, shop) for leaf in leaves]
                searches[i].settle(leaves, shop.judge(failed[i].question, texts) if leaves else [])
        return bool(rooms)

    def _remember(self, group: Group) -> None:
        judged = [one for one in group.attempts if one.judged]
        good = [one for one in judged if right(one)]
        if any(one.replayed for one in good) or not 0 < len(good) <= self.spec.rare * len(judged):
            return
        self._stored.pop(group.question.text, None)
        self._stored[group.question.text] = [
            {
                "tokens": list(one.completion.tokens),
                "logprobs": list(one.completion.logprobs),
                "ended": one.completion.ended,
                "value": one.value,
            }
            for one in good
        ]
        while len(self._stored) > self.spec.remembered:
            del self._stored[next(iter(self._stored))]

    def _recalled(self, group: Group) -> Group:
        """Return the group with its first answers replaced by stored ones; one of its own stays where it has several."""
        attempts = list(group.attempts)
        for i, one in enumerate(self._stored[group.question.text][: max(1, len(attempts) - 1)]):
            completion = Completion(0, i, tuple(one["tokens"]), tuple(one["logprobs"]), one["ended"])
            attempts[i] = Attempt(attempts[i].prompt, completion, one["value"], judged=True, replayed=True)
        return replace(group, attempts=attempts)

    def state_dict(self) -> dict[str, Any]:
        """Return the stored answers, the question stored first first."""
        return {"stored": [[text, [dict(one) for one in answers]] for text, answers in self._stored.items()]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up stored answers."""
        self._stored = {text: [dict(one) for one in answers] for text, answers in state["stored"]}


def _text(leaf: Node, shop: Workshop) -> str:
    """Return an answer as judges read it: without its end mark."""
    tokens = leaf.completion(0).tokens
    return shop.decode(tokens[:-1] if leaf.ended == "end" else tokens)


def _trained(group: Group, search: Search) -> Group:
    prompt = group.attempts[0].prompt
    attempts = [Attempt(prompt, leaf.completion(i), worth, judged) for i, (leaf, worth, judged) in enumerate(search.answers)]
    return replace(group, attempts=attempts)
