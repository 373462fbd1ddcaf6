"""Meter: what has been spent, by account. Everything charges the same books, overheads included."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from outlay.budget import BOUGHT, FLOWS, Budget
from outlay.errors import InputError

#: where seconds go while no account is open
IDLE = "idle"
#: where seconds go that passed before the meter was made, and while a run is being put together
SETUP = "setup"
#: where seconds go that a killed run spent after its last checkpoint
LOST = "lost"

Books = dict[str, dict[str, float]]


class Meter:
    """Keeps the books of one run: account -> unit -> amount.

    Seconds are charged to exactly one account at a time: the innermost open one, or ``idle``; so the accounts' seconds always sum to the
    time since the meter began. Money is not charged but follows from the priced unit: ``usd = price * seconds`` (or tokens).

    Args:
        budget: the limits that ``left``, ``progress`` and ``exhausted`` speak of.
        clock: returns seconds, never going back; tests inject their own.
        began: reading of the clock at which the run began, when that was before the meter was made (imports count).
    """

    def __init__(self, budget: Budget, clock: Callable[[], float] = time.monotonic, began: float | None = None) -> None:
        self.budget = budget
        self.accounts: Books = {}
        #: amounts in counted units that a kill threw away: on the books, but not against the limit, since they were done again
        self.lost: dict[str, float] = {}
        self._clock = clock
        self._mark = clock()
        if began is not None:
            self.accounts[SETUP] = {"seconds": max(0.0, self._mark - began)}
        self._open: list[str] = [IDLE]
        self._drained: Books = {}
        self._progress = 0.0

    def charge(self, account: str, **amounts: float) -> None:
        """Add amounts of counted units to an account. Seconds are charged by ``spend``; usd follows from its price.

        Raises:
            InputError: for an unknown unit, one that is not charged by hand, or an amount that is negative or not finite.
        """
        for unit, amount in amounts.items():
            if unit not in FLOWS or unit in {"seconds", "usd"}:
                raise InputError(
                    f"{unit!r} cannot be charged by hand; accepted: {', '.join(u for u in FLOWS if u not in {'seconds', 'usd'})}"
                )
            if not math.isfinite(amount) or amount < 0:
                raise InputError(f"a charge must be a finite number >= 0, found {unit}={amount!r}")
        book = self.accounts.setdefault(account, {})
        for unit, amount in amounts.items():
            book[unit] = book.get(unit, 0.0) + float(amount)  # a tensor's count must not end up in the saved books

    @contextmanager
    def spend(self, account: str) -> Iterator[None]:
        """Charge the seconds of the ``with`` block to ``account``; an inner block pauses the outer one."""
        self._lap()
        self._open.append(account)
        try:
            yield
        finally:
            self._lap()
            self._open.pop()

    def close(self) -> None:
        """Stop the clock: whatever follows is off the books."""
        self._lap()
        ended = self._mark
        self._clock = lambda: ended

    def _lap(self) -> None:
        now = self._clock()
        book = self.accounts.setdefault(self._open[-1], {})
        book["seconds"] = book.get("seconds", 0.0) + max(0.0, now - self._mark)
        self._mark = max(now, self._mark)

    def spent(self, unit: str) -> float:
        """Return how much of ``unit`` has been spent over all accounts, up to now."""
        if unit == "seconds":
            self._lap()
        if unit == "usd":
            return self.budget.price.usd * self.spent(self.budget.price.per) if self.budget.price else 0.0
        return math.fsum(book.get(unit, 0.0) for book in self.accounts.values())

    def left(self, unit: str) -> float:
        """Return declared minus spent; infinite for a unit without a limit."""
        return self.budget.limits[unit] - self.spent(unit) if unit in self.budget.limits else math.inf

    def remaining(self) -> Budget:
        """Return what is left as a budget of its own; limits that are used up are left out (see ``exhausted``)."""
        left = {unit: self.left(unit) for unit in self.budget.limits}
        return Budget({unit: amount for unit, amount in left.items() if amount > 0}, self.budget.ceilings, self.budget.price)

    @property
    def progress(self) -> float:
        """Largest spent share over the limits, in [0, 1], never falling; what is bought at once (``budget.BOUGHT``) has no part in it."""
        shares = [self.spent(unit) / limit for unit, limit in self.budget.limits.items() if unit not in BOUGHT]
        self._progress = max(self._progress, min(1.0, max(shares, default=0.0)))
        return self._progress

    @property
    def exhausted(self) -> str | None:
        """The unit whose limit is used up, or None; what is bought at once (``budget.BOUGHT``) ends nothing."""
        return next((unit for unit in self.budget.limits if unit not in BOUGHT and self.left(unit) <= 0), None)

    def totals(self) -> dict[str, float]:
        """Return spent amounts of every unit that was used or limited, money included."""
        self._lap()
        units = [unit for unit in FLOWS if unit in self.budget.limits or any(unit in book for book in self.accounts.values())]
        return {unit: self.spent(unit) for unit in units}

    def books(self) -> Books:
        """Return the accounts with money worked out per account; every unit's accounts sum to ``spent(unit)``."""
        self._lap()
        books = {account: dict(book) for account, book in self.accounts.items() if any(book.values())}
        price = self.budget.price
        for book in books.values():
            if price and price.per in book:
                book["usd"] = price.usd * book[price.per]
        return books

    def drain(self) -> Books:
        """Return what was charged since the last drain. The journal writes it, so that its lines add up to the accounts."""
        self._lap()
        fresh: Books = {}
        for account, book in self.accounts.items():
            seen = self._drained.setdefault(account, {})
            delta = {unit: amount - seen.get(unit, 0.0) for unit, amount in book.items() if amount != seen.get(unit, 0.0)}
            if delta:
                fresh[account] = delta
                seen.update(book)
        return fresh

    def settled(self) -> dict[str, Any]:
        """Return the state as of the last drain, in the form of ``state_dict``: what the journal's lines add up to."""
        return {"accounts": {account: dict(book) for account, book in self._drained.items()}, "lost": dict(self.lost)}

    def write_off(self, lost: Mapping[str, float]) -> None:
        """Book what a kill threw away: seconds are gone and go to the account ``lost``; counted units are done again, so they are kept
        beside the accounts and do not count against their limit."""
        for unit, amount in lost.items():
            self.lost[unit] = self.lost.get(unit, 0.0) + amount
        if lost.get("seconds"):
            book = self.accounts.setdefault(LOST, {})
            book["seconds"] = book.get("seconds", 0.0) + lost["seconds"]

    def state_dict(self) -> dict[str, Any]:
        """Return accounts and losses as plain values."""
        self._lap()
        return {"accounts": {account: dict(book) for account, book in self.accounts.items()}, "lost": dict(self.lost)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up saved books, keeping what this process has charged since it began (its own set-up)."""
        for account, book in state["accounts"].items():
            mine = self.accounts.setdefault(account, {})
            for unit, amount in book.items():
                mine[unit] = mine.get(unit, 0.0) + amount
                seen = self._drained.setdefault(account, {})
                seen[unit] = seen.get(unit, 0.0) + amount
        for unit, amount in state["lost"].items():
            self.lost[unit] = self.lost.get(unit, 0.0) + amount
