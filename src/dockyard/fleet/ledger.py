"""Who holds how much of the memory budget. Pure bookkeeping, in bytes."""

from __future__ import annotations


class Ledger:
    """A budget and what is charged against it, by key.

    A charge begins as a prediction and becomes what was measured after the load. Reserving never takes the sum above
    the budget; only a measurement can, and then ``over`` says by how much until something leaves.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._charges: dict[str, int] = {}
        self._floors: dict[str, int] = {}

    def reserve(self, key: str, predicted: int, *, floor: int = 0) -> None:
        """Charge a prediction before its load. ``floor`` is the part known for certain: a measurement never goes below.

        Raises ValueError where that would exceed the budget, or the key is charged already.
        """
        if key in self._charges:
            raise ValueError(f"{key} holds memory already")
        if predicted < 0 or predicted > self.free:
            raise ValueError(f"{key} needs {predicted} bytes and {self.free} are free")
        self._charges[key] = predicted
        self._floors[key] = min(floor, predicted)

    def correct(self, key: str, measured: int) -> int:
        """Put what was measured in the place of what was predicted; returns the new charge.

        Pages that a worker has not touched yet are missing from a measurement, so weights and KV cache stay charged.
        """
        self._charges[key] = max(measured, self._floors[key])
        return self._charges[key]

    def release(self, key: str) -> int:
        """Take a key off; returns the bytes that came free, 0 for a key that held none."""
        self._floors.pop(key, None)
        return self._charges.pop(key, 0)

    def of(self, key: str) -> int:
        return self._charges.get(key, 0)

    @property
    def charged(self) -> int:
        return sum(self._charges.values())

    @property
    def free(self) -> int:
        """Bytes left; negative while measurements exceed the budget."""
        return self.budget - self.charged

    def __len__(self) -> int:
        return len(self._charges)
