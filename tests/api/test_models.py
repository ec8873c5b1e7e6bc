"""Models in OpenAI's shape: listed, looked up, removed."""

from __future__ import annotations

from pathlib import Path

from litestar.testing import TestClient

from dockyard.api import create_app
from dockyard.artifact.store import Store
from dockyard.ops.pack import Sources, package
from dockyard.settings import Settings


def test_a_model_is_removed_by_its_name(tmp_path: Path, starter_gguf: Path) -> None:
    settings = Settings(home=str(tmp_path))
    store = Store.open(settings)
    for name in ("smol", "spare"):
        package(store, Sources(weights=(starter_gguf,)), reference=store.named(name))
    app = create_app(settings, store=store, trusted=True)
    with TestClient(app, base_url="http://127.0.0.1:12434") as http:
        assert http.get("/v1/models/spare").json()["id"] == "spare"
        assert http.delete("/v1/models/spare").json() == {"id": "spare", "object": "model", "deleted": True}
        assert [one["id"] for one in http.get("/v1/models").json()["data"]] == ["smol", "echo"]
        again = http.delete("/v1/models/spare")
        built_in = http.delete("/v1/models/echo")
    assert (again.status_code, again.json()["error"]["code"]) == (404, "model_not_found")
    assert (built_in.status_code, built_in.json()["error"]["param"]) == (403, "model")
