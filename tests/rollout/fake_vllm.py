"""A stand-in for a vLLM server: the same HTTP interface before a tiny model of transformers, with faults on demand.

Like vLLM it keeps what it has computed for a prefix and uses it again, also after its weights have changed, until it is told to forget it.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

FIELDS = {
    "model": str, "prompt": list, "max_tokens": int, "n": int, "seed": int, "temperature": float, "top_p": float, "top_k": int, "stop": list,
    "logprobs": int, "return_token_ids": bool, "skip_special_tokens": bool, "min_p": float, "repetition_penalty": float,
    "presence_penalty": float, "frequency_penalty": float,
}  # fmt: skip


class Refused(Exception):
    """What the server answers with a status of its own."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class FakeVllm:
    """Serve the model in a folder at ``address`` while the ``with`` block lasts.

    Args:
        folder: model and tokenizer.
        processed: log-probabilities after temperature, ``top_k`` and ``top_p`` instead of the model's own.
        dev_mode: whether weights may be read again.
        adapters: whether adapters may be loaded.
        longest: positions of a request at most.
        token_ids: whether tokens are returned, which old versions do not.
    """

    def __init__(
        self,
        folder: Path,
        *,
        processed: bool = False,
        dev_mode: bool = True,
        adapters: bool = False,
        longest: int = 64,
        token_ids: bool = True,
    ) -> None:
        self.folder, self.processed, self.dev_mode, self.adapters = folder, processed, dev_mode, adapters
        self.longest, self.token_ids = longest, token_ids
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.models: dict[str, nn.Module] = {}
        self.known: dict[tuple[str, tuple[int, ...]], torch.Tensor] = {}
        self.asked: list[tuple[str, Any]] = []
        self.faults: deque[str] = deque()
        self.most = self.now = 0
        self.lock = threading.RLock()
        self.reload()

    def __enter__(self) -> FakeVllm:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_GET(self) -> None:
                fake.answer(self, None)

            def do_POST(self) -> None:
                fake.answer(self, json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}"))

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:  # a client that has gone away
                pass

        self.server = Quiet(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]

    def completions(self) -> list[Any]:
        return [body for path, body in self.asked if path == "/v1/completions"]

    # ---- answering -----------------------------------------------------------------------------------------------------------------

    def answer(self, handler: BaseHTTPRequestHandler, body: Any) -> None:
        with self.lock:
            self.asked.append((handler.path, body))
            fault = self.faults.popleft() if self.faults and handler.path == "/v1/completions" else ""
            self.now += 1
            self.most = max(self.most, self.now)
        if fault == "hang":
            time.sleep(1.0)
            return
        if fault == "close":
            handler.connection.close()
            return
        try:
            if fault.isdigit():
                raise Refused(int(fault), "out of sorts")
            status, content = 200, self.route(handler.path, body)
        except Refused as error:
            status, content = error.status, json.dumps({"error": {"message": str(error), "code": error.status}}).encode()
        with self.lock:
            self.now -= 1  # before the answer is sent, upon which the next may come
        if fault == "garbage":
            content = b"<html>"
        if fault in ("abort", "lost logprob", "empty"):
            content = json.dumps(spoilt(json.loads(content), fault)).encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[: len(content) // 2] if fault == "truncated" else content)

    def route(self, path: str, body: Any) -> bytes:
        with self.lock:
            if path == "/v1/models":
                base = {"id": "served", "parent": None, "root": str(self.folder), "max_model_len": self.longest}
                names = [{"id": name, "parent": "served"} for name in self.models if name != "served"]
                return json.dumps({"object": "list", "data": [*reversed(names), base]}).encode()
            if path == "/v1/completions":
                return json.dumps(self.complete(body)).encode()
            if path == "/collective_rpc" and self.dev_mode:
                if body != {"method": "reload_weights"}:
                    raise Refused(400, f"unknown method in {body}")
                self.reload()
                return b'{"results": [null]}'
            if path == "/reset_prefix_cache" and self.dev_mode:
                self.known.clear()
                return b""
            if path == "/v1/load_lora_adapter" and self.adapters:
                return self.load(body["lora_name"], Path(body["lora_path"]))
            if path == "/v1/unload_lora_adapter" and self.adapters:
                if self.models.pop(body["lora_name"], None) is None:
                    raise Refused(404, f"no adapter {body['lora_name']}")
                return f"Success: LoRA adapter '{body['lora_name']}' removed successfully.".encode()
        raise Refused(404, "Not Found")

    def reload(self) -> None:
        self.models["served"] = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32).eval()

    def load(self, name: str, path: Path) -> bytes:
        from peft import PeftModel

        if name in self.models:
            raise Refused(400, f"The lora adapter '{name}' has already been loaded.")
        base = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32)
        self.models[name] = PeftModel.from_pretrained(base, path).eval()
        return f"Success: LoRA adapter '{name}' added successfully.".encode()

    # ---- generating ----------------------------------------------------------------------------------------------------------------

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        wrong = [
            name for name, value in body.items() if not isinstance(value, (FIELDS[name], int) if FIELDS[name] is float else FIELDS[name])
        ]
        if set(body) - set(FIELDS) or wrong or body["n"] != 1 or not all(isinstance(token, int) for token in body["prompt"]):
            raise Refused(400, f"bad fields in {body}")
        if body["model"] not in self.models:
            raise Refused(404, f"The model `{body['model']}` does not exist.")
        if len(body["prompt"]) + body["max_tokens"] > self.longest:
            raise Refused(400, f"maximum context length is {self.longest} tokens")
        tokens, logprobs, finish, stop = self.write(body)
        choice = {
            "index": 0, "text": self.tokenizer.decode(tokens), "finish_reason": finish, "stop_reason": stop,
            "logprobs": {"tokens": [f"token_id:{token}" for token in tokens], "token_logprobs": logprobs},
            "token_ids": tokens if self.token_ids else None,
        }  # fmt: skip
        return {"object": "text_completion", "model": body["model"], "choices": [choice], "usage": {"completion_tokens": len(tokens)}}

    def write(self, body: dict[str, Any]) -> tuple[list[int], list[float], str, str | None]:
        draw = torch.Generator().manual_seed(body["seed"])
        tokens: list[int] = []
        logprobs: list[float] = []
        for _ in range(body["max_tokens"]):
            logits = self.logits(body["model"], (*body["prompt"], *tokens))
            raw = torch.log_softmax(logits, -1)
            left = torch.log_softmax(cut(logits / (body["temperature"] or 1.0), body["top_k"], body["top_p"]), -1)
            token = int(logits.argmax()) if body["temperature"] == 0 else int(torch.multinomial(left.exp(), 1, generator=draw))
            tokens.append(token)
            logprobs.append(float((left if self.processed else raw)[token]))
            if token == self.tokenizer.eos_token_id:
                return tokens, logprobs, "stop", None
            text = self.tokenizer.decode(tokens, skip_special_tokens=body["skip_special_tokens"])
            held = next((stop for stop in body["stop"] if stop in text), None)
            if held is not None:
                return tokens, logprobs, "stop", held
        return tokens, logprobs, "length", None

    def logits(self, name: str, ids: tuple[int, ...]) -> torch.Tensor:
        if (name, ids) not in self.known:
            with torch.no_grad():
                self.known[name, ids] = self.models[name](input_ids=torch.tensor([ids])).logits[0, -1].double()
        return self.known[name, ids]


def cut(logits: torch.Tensor, top_k: int, top_p: float) -> torch.Tensor:
    """Return the logits with those that ``top_k`` and then ``top_p`` leave out at minus infinity."""
    order = logits.argsort(descending=True)
    kept = order[: top_k or len(order)]
    chances = torch.softmax(logits[kept], -1)
    kept = kept[chances.cumsum(-1) - chances < top_p]
    return torch.full_like(logits, -torch.inf).index_copy(0, kept, logits[kept])


def spoilt(answer: dict[str, Any], fault: str) -> dict[str, Any]:
    choice = answer["choices"][0]
    if fault == "abort":
        choice["finish_reason"] = "abort"
    if fault == "lost logprob":
        choice["logprobs"]["token_logprobs"].pop()
    if fault == "empty":
        answer["choices"] = []
    return answer
