"""SecureVector's Guardian: a small linear model of attacks on models, in pure Python, its weights in its package."""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import version
from importlib.resources import files
from importlib.util import find_spec
from typing import Any

PACKAGE = "securevector-guardian-model"


class Guardian:
    """Scores whole texts and, for long ones, each window of some words: one bad sentence is not diluted."""

    def __init__(self, model: Any) -> None:
        self.name = f"{PACKAGE}-{version(PACKAGE)}"
        self._model = model

    @property
    def categories(self) -> tuple[str, ...]:
        return tuple(one for one in self._model.classes if one != self._model.benign)

    def judge(self, text: str) -> tuple[bool, dict[str, float]]:
        from svguardian.window import predict_windowed

        whole = self._model.predict(text)
        scores = {name: score for name, score in whole["top3"] if name != self._model.benign}
        found = predict_windowed(self._model, text)
        flagged = found["verdict"] == "malicious"
        if flagged and found["category"]:
            scores[found["category"]] = max(found["malicious_score"], scores.get(found["category"], 0.0))
        return flagged, scores


@lru_cache(1)
def load() -> Guardian | None:
    if find_spec("svguardian") is None:
        return None
    from svguardian.model.pure_infer import PureGuardian

    # The package's own way to its weights would go to the network if they were missing.
    return Guardian(PureGuardian.load(str(files("svguardian._runtime") / "guardian.runtime.json.gz")))
