from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_vllm import FakeVllm
from torch import nn

import outlay
from outlay.adapters import Lora
from outlay.context import Context
from outlay.errors import InputError
from outlay.models import Transformer
from outlay.models.tokenizers import open_tokenizer
from outlay.rollout import Completion, Local, Request, Sampling, Vllm, Work, sample_stream
from outlay.rollout.handing import weights_mark
from outlay.rollout.serving import ServerError
from outlay.testing import check_engine

TOKENIZER = open_tokenizer("characters")
CONTEXT = Context(seed=0, tokenizer=TOKENIZER)
GREEDY = Sampling(temperature=0.0)


def ids(text: str) -> tuple[int, ...]:
    return tuple(TOKENIZER(text, add_special_tokens=False)["input_ids"])


REQUESTS = [Request(ids("2+2="), 3, 6, stream=7), Request(ids("why"), 2, 9, stream=8)]


def fresh(seed: int = 0) -> nn.Module:
    module = Transformer(hidden=16, layers=1, heads=2, context=64).build(seed).module
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(3.0)  # untrained, it would hardly prefer any token
    return module.eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "served"
    fresh(99).save_pretrained(path)  # type: ignore[operator]
    TOKENIZER.save_pretrained(path)
    return path


@pytest.fixture
def server(folder: Path) -> Iterator[FakeVllm]:
    with FakeVllm(folder) as fake:
        yield fake


def engine(server: FakeVllm, **fields: Any) -> Vllm:
    return Vllm(**{"folder": server.folder, "address": server.address, "timeout": 60.0, "wait": 0.0, "parallel": 4, **fields})


def always(work: Work) -> bool:
    return True


def generate(
    found: Vllm,
    model: nn.Module,
    requests: list[Request] = REQUESTS,
    sampling: Sampling = Sampling(),
    leave: Callable[[Work], bool] = always,
) -> list[Completion]:
    return found.open(model, CONTEXT).generate(requests, sampling, seed=3, leave=leave)


def written(completions: list[Completion]) -> list[tuple[int, int, tuple[int, ...], str]]:
    return [(one.request, one.sample, one.tokens, one.ended) for one in completions]


# ---- the contract ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parallel", [1, 4])
def test_contract(server: FakeVllm, parallel: int) -> None:
    # what the server was given are these weights, so that its log-probabilities are those of the model's forward pass
    check_engine(
        engine(server, parallel=parallel), fresh(), TOKENIZER, others=[engine(server, parallel=7)], hooks=False, temperatures=False
    )


# ---- what is written ---------------------------------------------------------------------------------------------------------------


def test_greedy_completions_are_those_of_the_local_engine(server: FakeVllm) -> None:
    model = fresh()
    theirs, ours = generate(engine(server), model, sampling=GREEDY), generate(Local(), model, sampling=GREEDY)  # type: ignore[arg-type]
    assert written(theirs) == written(ours)
    for one, other in zip(theirs, ours, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_samples_come_in_order_with_the_seed_of_their_own_stream(server: FakeVllm) -> None:
    found = generate(engine(server), fresh())
    assert [(one.request, one.sample) for one in found] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    seeds = {(tuple(body["prompt"]), body["seed"]) for body in server.completions()}
    assert seeds == {(request.prompt, sample_stream(3, request.stream, i)) for request in REQUESTS for i in range(request.samples)}
    assert len({one.tokens for one in found[:3]}) == 3


def test_what_a_sample_becomes_depends_on_nothing_beside_it(server: FakeVllm) -> None:
    model = fresh()
    together = generate(engine(server, parallel=5), model)
    assert generate(engine(server, parallel=1), model) == together
    alone = generate(engine(server), model, [REQUESTS[1]])
    assert [(one.tokens, one.logprobs) for one in alone] == [(one.tokens, one.logprobs) for one in together[3:]]


def test_log_probabilities_are_the_models_own(server: FakeVllm) -> None:
    model = fresh()
    for one in generate(engine(server), model):
        prompt = REQUESTS[one.request].prompt
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*prompt, *one.tokens]])).logits[0].log_softmax(-1)
        own = [float(logits[len(prompt) - 1 + i, token]) for i, token in enumerate(one.tokens)]
        assert one.logprobs == pytest.approx(own, abs=1e-4)


def test_limits_ends_and_stop_strings(server: FakeVllm) -> None:
    model = fresh()
    plain = generate(engine(server), model, [Request(ids("2+2="), 20, 12)])
    assert {one.ended for one in plain} >= {"limit"} and all(len(one.tokens) == 12 for one in plain if one.ended == "limit")
    assert all(one.tokens[-1] == TOKENIZER.eos_token_id for one in plain if one.ended == "end")
    mark = TOKENIZER.decode([next(one for one in plain if one.ended == "limit").tokens[3]])
    stopped = generate(engine(server), model, [Request(ids("2+2="), 20, 12)], Sampling(stop=(mark,)))
    held = [one for one in stopped if one.ended == "stop"]
    assert held and all(mark in TOKENIZER.decode(one.tokens) and mark not in TOKENIZER.decode(one.tokens[:-1]) for one in held)


def test_an_end_mark_is_kept(server: FakeVllm) -> None:
    model = fresh()
    with torch.no_grad():  # the output layer shares the embedding: after "=" comes what is most like it
        embeddings = model.get_input_embeddings().weight  # type: ignore[operator, union-attr]
        embeddings[TOKENIZER.eos_token_id] = embeddings[ids("=")[0]] * 50
    found = generate(engine(server), model, [Request(ids("2+2="), 1, 12)], GREEDY)
    assert written(found) == [(0, 0, (TOKENIZER.eos_token_id,), "end")]


# ---- what is charged ---------------------------------------------------------------------------------------------------------------


def test_leave_is_asked_for_the_most_and_what_was_written_is_charged(server: FakeVllm) -> None:
    asked: list[Work] = []

    def leave(work: Work) -> bool:
        asked.append(work)
        return True

    found = generate(engine(server, parallel=2), fresh(), leave=leave)
    lengths = [len(one.tokens) for one in found]
    after = [work for work in asked if work.when == "after"]
    assert after == [Work(prompt, length, length - 1, 1, "after") for prompt, length in zip((4, 0, 0, 3, 0), lengths, strict=True)]
    ahead = [
        Work(4, 6, 5, 1, "ahead"), Work(4, 12, 10, 2, "ahead"),  # the first two samples
        Work(0, 12, 10, 2, "ahead"), Work(3, 15, 13, 2, "ahead"), Work(3, 18, 16, 2, "ahead"),  # one has been charged before each further one
    ]  # fmt: skip
    assert [work for work in asked if work.when == "ahead"] == ahead
    assert [work.when for work in asked] == ["ahead", "ahead", *["after", "ahead"] * 3, "after", "after"]


def test_a_prompt_asked_for_twice_is_counted_once(server: FakeVllm) -> None:
    asked: list[Work] = []
    generate(
        engine(server), fresh(), [Request(ids("2+2="), 1, 3, 1), Request(ids("2+2="), 1, 3, 2)], leave=lambda work: not asked.append(work)
    )
    assert sum(work.prompt_tokens for work in asked if work.when == "after") == 4


@pytest.mark.parametrize("bearable", [0, 1, 3])
def test_what_has_no_leave_comes_back_cut_and_empty(server: FakeVllm, bearable: int) -> None:
    begun = 0

    def leave(work: Work) -> bool:
        nonlocal begun
        if work.when == "ahead":
            begun += 1
            return begun <= bearable
        return True

    model = fresh()
    found = generate(engine(server, parallel=2), model, leave=leave)
    assert [one.ended == "cut" for one in found] == [place >= bearable for place in range(5)]
    assert all(one.tokens == one.logprobs == () for one in found[bearable:])
    assert len(server.completions()) == bearable
    assert found[:bearable] == generate(engine(server), model)[:bearable]


def test_no_more_requests_are_under_way_than_allowed(server: FakeVllm) -> None:
    generate(engine(server, parallel=2), fresh(), [Request(ids("2+2="), 12, 4)])
    assert server.most <= 2


# ---- weights -----------------------------------------------------------------------------------------------------------------------


def test_weights_are_handed_over_when_a_bit_has_changed(server: FakeVllm) -> None:
    model = fresh()
    found = engine(server).open(model, CONTEXT)
    asked = [Request(ids("2+2="), 1, 6)]

    def both() -> tuple[list[Completion], list[Completion]]:
        return found.generate(asked, GREEDY, seed=0, leave=always), Local().open(model, CONTEXT).generate(
            asked, GREEDY, seed=0, leave=always
        )

    first, local = both()
    assert written(first) == written(local)
    assert both()[0] == first
    assert server.paths().count("/collective_rpc") == server.paths().count("/reset_prefix_cache") == 1
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    second, local = both()
    assert written(second) == written(local) != written(first)
    assert second[0].logprobs == pytest.approx(local[0].logprobs, abs=1e-4)  # nothing that was computed before is used again
    assert server.paths().count("/collective_rpc") == server.paths().count("/reset_prefix_cache") == 2
    assert not list(server.folder.glob(".outlay-*"))


def test_the_mark_sees_single_bits_and_places() -> None:
    model = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    mark = weights_mark(model)
    assert weights_mark(model) == mark and len(mark) == 16
    with torch.no_grad():
        model.weight[0, 0] = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))
    assert weights_mark(model) != mark
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[2.0, 1.0], [3.0, 4.0]]))
    assert weights_mark(model) != mark
    model.weight.data.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert weights_mark(model) == mark
    assert weights_mark(model.to(torch.bfloat16)) != mark


def test_shards_of_another_number_are_not_left_behind(server: FakeVllm) -> None:
    (server.folder / "model-00001-of-00002.safetensors").write_bytes(b"old")
    (server.folder / "model.safetensors.index.json").write_text("{}")
    generate(engine(server), fresh(), sampling=GREEDY)
    assert [path.name for path in server.folder.glob("*.safetensors*")] == ["model.safetensors"]


def test_adapters_are_loaded_under_new_names(folder: Path, tmp_path: Path) -> None:
    adapters = tmp_path / "adapters"
    adapters.mkdir()
    with FakeVllm(folder, adapters=True, dev_mode=False) as server:
        from transformers import AutoModelForCausalLM

        model = Lora(rank=2).attach(AutoModelForCausalLM.from_pretrained(folder), 0).eval()
        found = engine(server, weights="lora", folder=adapters).open(model, CONTEXT)
        asked = [Request(ids("2+2="), 1, 6)]
        names = []
        for turn in range(2):
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if "lora_B" in name:
                        parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(turn)))
            first = found.generate(asked, GREEDY, seed=0, leave=always)
            assert written(first) == written(Local().open(model, CONTEXT).generate(asked, GREEDY, seed=0, leave=always))
            assert found.generate(asked, GREEDY, seed=0, leave=always) == first
            names.append(f"outlay-{weights_mark(model)}")
            assert sorted(server.models) == sorted(["served", names[-1]])
            assert [path.name for path in adapters.iterdir()] == [names[-1]]
        assert server.paths().count("/v1/load_lora_adapter") == 2 and server.paths().count("/v1/unload_lora_adapter") == 1
        # a run that goes on after a kill finds its adapter there
        assert engine(server, weights="lora", folder=adapters).open(model, CONTEXT).generate(asked, GREEDY, seed=0, leave=always) == first
        assert server.paths().count("/v1/load_lora_adapter") == 2


# ---- faults ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["500", "503", "429", "close", "truncated", "garbage", "abort", "lost logprob", "empty", "hang"])
def test_faults_that_pass_are_tried_again(server: FakeVllm, fault: str) -> None:
    model = fresh()
    expected = generate(engine(server), model)
    server.faults.extend([fault, fault, "", fault])
    # the longest wait is the one for an answer that does not come
    assert generate(engine(server, parallel=1, timeout=0.5 if fault == "hang" else 60.0), model) == expected


@pytest.mark.parametrize(
    ("fault", "said"),
    [("500", "status 500: out of sorts"), ("truncated", "IncompleteRead"), ("garbage", "JSONDecodeError"), ("abort", "ended by 'abort'")],
)
def test_faults_that_stay_end_the_generation(server: FakeVllm, fault: str, said: str) -> None:
    server.faults.extend([fault] * 3)
    with pytest.raises(ServerError, match=rf"/v1/completions failed 3 times, at last with .*{said}"):
        generate(engine(server, retries=2, parallel=1), fresh())
    assert len(server.completions()) == 3


def test_what_the_server_refuses_is_not_tried_again(server: FakeVllm) -> None:
    server.faults.append("400")
    with pytest.raises(ServerError, match="/v1/completions refuses: status 400: out of sorts"):
        generate(engine(server, parallel=1), fresh())
    assert len(server.completions()) == 1


def test_what_was_written_before_a_fault_is_charged(server: FakeVllm) -> None:
    charged: list[Work] = []
    server.faults.extend(["", "", "400"])
    with pytest.raises(ServerError):
        generate(engine(server, parallel=1), fresh(), leave=lambda work: work.when == "ahead" or not charged.append(work))
    assert len(charged) == 2


def test_a_server_that_is_not_there_is_an_input_error(server: FakeVllm) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: whoever connects is refused
        nobody = engine(server, address=f"http://127.0.0.1:{taken.getsockname()[1]}", retries=1)
        with pytest.raises(InputError, match=r"no vLLM server at .*; start one with: vllm serve MODEL .*failed 2 times.*ConnectionRefused"):
            nobody.open(fresh(), CONTEXT)


def test_servers_that_cannot_take_weights_or_tell_tokens_say_how_to_start_them(folder: Path, tmp_path: Path) -> None:
    with FakeVllm(folder, dev_mode=False) as server, pytest.raises(ServerError, match="start it with VLLM_SERVER_DEV_MODE=1 .*404"):
        generate(engine(server), fresh())
    with FakeVllm(folder) as server:
        model = Lora(rank=2).attach(fresh(), 0)
        with pytest.raises(ServerError, match="start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and --enable-lora"):
            generate(engine(server, weights="lora", folder=tmp_path), model)
    with FakeVllm(folder, token_ids=False) as server, pytest.raises(ServerError, match="needs vLLM 0.10.2 or later"):
        generate(engine(server), fresh())


# ---- what is refused beforehand ----------------------------------------------------------------------------------------------------


def test_temperatures_whose_log_probabilities_cannot_be_told_are_refused(folder: Path) -> None:
    model = fresh()
    with FakeVllm(folder) as server:
        with pytest.raises(InputError, match="sampling is at 0.7; start it with --logprobs-mode processed_logprobs"):
            generate(engine(server), model, sampling=Sampling(temperature=0.7))
        generate(engine(server), model, sampling=Sampling(top_p=0.9, top_k=5))
        assert "/v1/completions" in server.paths()
    with FakeVllm(folder, processed=True) as server:
        found = generate(engine(server, logprobs="processed"), model, sampling=Sampling(temperature=0.7))
        prompt = REQUESTS[0].prompt
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*prompt, *found[0].tokens]])).logits[0]
        own = [float((logits[len(prompt) - 1 + i] / 0.7).log_softmax(-1)[token]) for i, token in enumerate(found[0].tokens)]
        assert found[0].logprobs == pytest.approx(own, abs=1e-4)
        for sampling in (Sampling(temperature=0.7, top_p=0.9), Sampling(top_k=5)):
            with pytest.raises(InputError, match="after top_p and top_k"):
                generate(engine(server, logprobs="processed"), model, sampling=sampling)


def test_requests_that_cannot_be_met_cost_nothing(server: FakeVllm) -> None:
    model = fresh()
    for bad, message in [
        (Request((), 1, 1), "request 0 needs at least one prompt token"),
        (Request((5,), 0, 1), "0 samples"),
        (Request((5,), 1, 0), "limit 0"),
        (Request((5,) * 60, 1, 5), "request 0 takes 65 positions and the server allows 64"),
    ]:
        with pytest.raises(InputError, match=message):
            generate(engine(server), model, [bad])
    with pytest.raises(InputError, match="cannot change logits: its server knows no hooks; take rollout/local"):
        engine(server).open(model, CONTEXT).generate(REQUESTS, GREEDY, seed=0, leave=always, hooks=[lambda logits, rows, text: logits])
    assert generate(engine(server), model, []) == []
    assert set(server.paths()) == {"/v1/models"}


def test_models_and_runs_that_do_not_fit_are_refused(server: FakeVllm, tmp_path: Path) -> None:
    adapted = Lora(rank=2).attach(fresh(), 0)
    for found, model, context, message in [
        (engine(server), nn.Linear(1, 1), CONTEXT, "needs a model of transformers, found Linear"),
        (engine(server), adapted, CONTEXT, "the model has adapters: hand its weights over by lora, found folder"),
        (engine(server, weights="lora"), fresh(), CONTEXT, "the model has no adapters: hand its weights over by folder, found lora"),
        (engine(server, folder=tmp_path / "none"), fresh(), CONTEXT, "which is no folder"),
        (engine(server), fresh(), Context(seed=0, world=2), "serves a run of one process, found 2"),
    ]:
        with pytest.raises(InputError, match=message):
            found.open(model, context)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"parallel": 0}, "parallel must be > 0, found 0"),
        ({"timeout": 0.0}, "timeout must be a finite number of seconds > 0, found 0"),
        ({"retries": -1}, "retries must be >= 0, found -1"),
        ({"wait": -1.0}, "wait must be a finite number of seconds >= 0, found -1"),
        ({"address": "localhost:8000"}, "address must read http://host:port"),
        ({"address": "http://localhost:8000/v1"}, "address must read http://host:port, without a path"),
    ],
)
def test_bad_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        outlay.make("rollout/vllm", folder="served", **fields)
