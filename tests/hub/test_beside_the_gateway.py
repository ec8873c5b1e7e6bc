"""The hub of a whole server: its paths are the hub's, however deep, and other dialects do not catch them."""

from __future__ import annotations

from pathlib import Path

import pytest
from litestar.testing import TestClient

from dockyard.api import create_app
from dockyard.settings import Settings


@pytest.mark.parametrize("path", ["/v2/", "/v2/_catalog", "/v2/a/b/tags/list", "/v2/a/blobs/sha256:" + "0" * 64])
def test_every_path_of_the_hub_is_answered_by_it(tmp_path: Path, path: str) -> None:
    app = create_app(Settings(home=str(tmp_path), log_level="warning"), trusted=True)
    with TestClient(app, base_url="http://127.0.0.1") as http:
        answer = http.get(path)
    assert answer.headers["docker-distribution-api-version"] == "registry/2.0"
    assert "there is nothing" not in answer.text
