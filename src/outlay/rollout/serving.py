"""Serving: requests to a server over HTTP, tried again where that can help."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from outlay.errors import OutlayError
from outlay.schedules.base import require

Found = TypeVar("Found")

#: answers that may be others the next time
_PASSING = frozenset({408, 425, 429})


class ServerError(OutlayError):
    """A server cannot be reached, or does not do what it is asked."""


@dataclass(frozen=True)
class Server:
    """A server and how patiently it is asked.

    Args:
        address: such as ``http://localhost:8000``.
        timeout: seconds without a byte after which a request has failed, > 0.
        retries: how often a request is tried again, >= 0.
        wait: seconds before the first time; twice as long before each further one, >= 0.
    """

    address: str
    timeout: float
    retries: int
    wait: float

    def __post_init__(self) -> None:
        parts = urlsplit(self.address)
        plain = parts.scheme in ("http", "https") and parts.hostname and parts.path in ("", "/") and not parts.query
        require(bool(plain), f"address must read http://host:port, without a path, found {self.address!r}")
        require(0 < self.timeout < float("inf"), f"timeout must be a finite number of seconds > 0, found {self.timeout}")
        require(self.retries >= 0, f"retries must be >= 0, found {self.retries}")
        require(0 <= self.wait < float("inf"), f"wait must be a finite number of seconds >= 0, found {self.wait}")

    def ask(self, path: str, body: Mapping[str, Any] | None, read: Callable[[Any], Found], *, plain: bool = False) -> Found:
        """Return what ``read`` makes of the JSON that the server answers (None for an answer without content).

        A connection that fails or breaks off, a timeout, an error of the server, and an answer that is no JSON or of which ``read`` raises
        ValueError, KeyError, IndexError or TypeError are tried again. What the server refuses is not.

        Args:
            path: such as ``/v1/completions``.
            body: sent by POST as JSON; None for GET.
            read: takes the answer apart.
            plain: the answer is a text, not JSON.

        Raises:
            ServerError: when the server refuses, or all tries have failed; the message holds the server's own words.
        """
        for attempt in range(self.retries + 1):
            if attempt:
                time.sleep(self.wait * 2 ** (attempt - 1))
            try:
                status, content = self._exchange(path, body)
                if status < 400:
                    return read(content.decode() if plain else json.loads(content) if content.strip() else None)
                why = f"status {status}: {_words(content)}"
                if status < 500 and status not in _PASSING:
                    raise ServerError(f"{self.address}{path} refuses: {why}")
            except (OSError, http.client.HTTPException, ValueError, KeyError, IndexError, TypeError) as error:
                why = f"{type(error).__name__}: {error}"
        raise ServerError(f"{self.address}{path} failed {self.retries + 1} times, at last with {why}")

    def _exchange(self, path: str, body: Mapping[str, Any] | None) -> tuple[int, bytes]:
        parts = urlsplit(self.address)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=self.timeout)
        try:
            if body is None:
                connection.request("GET", path)
            else:
                connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def _words(content: bytes) -> str:
    """Return what the server says of an error, in the forms that vLLM uses."""
    text = content.decode("utf-8", "replace")
    try:
        said = json.loads(text)
        said = said.get("error", said)
        if isinstance(said, dict):
            said = said.get("message", said.get("detail", said))
    except (ValueError, AttributeError):
        said = text
    return str(said)[:500]
