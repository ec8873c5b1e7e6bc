"""OpenAI's hot endpoints by their path below ``/v1``, so that they can be served under other prefixes too."""

from __future__ import annotations

from dockyard.api._endpoint import Endpoint
from dockyard.api._site import Site
from dockyard.api._wire import Hot


def endpoints(site: Site) -> dict[str, Hot]:
    """An ASGI callable for each; ``site`` must have a gateway."""
    from dockyard.api._chat_endpoint import ChatEndpoint
    from dockyard.api.openai_completions import Completions
    from dockyard.api.openai_embeddings import Embeddings
    from dockyard.api.openai_moderations import Moderations

    assert site.gateway is not None
    return {
        "/chat/completions": ChatEndpoint(site),
        "/completions": Endpoint(site.gateway, Completions(), site.watchdog),
        "/embeddings": Endpoint(site.gateway, Embeddings(), site.watchdog),
        "/moderations": Moderations(site),
    }
