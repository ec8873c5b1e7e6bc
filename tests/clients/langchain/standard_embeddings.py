"""LangChain's standard tests of embeddings, over its own OpenAI client, which sends token ids unless told otherwise."""

from __future__ import annotations

import os
from typing import Any

from langchain_openai import OpenAIEmbeddings
from langchain_tests.integration_tests import EmbeddingsIntegrationTests


class TestEmbeddings(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[OpenAIEmbeddings]:
        return OpenAIEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {
            "model": os.environ["DOCKYARD_MODEL"],
            "base_url": os.environ["DOCKYARD_URL"],
            "api_key": os.environ["DOCKYARD_KEY"],
            "check_embedding_ctx_length": False,  # else its tokenizer's ids of a model that is not here are sent
            "max_retries": 0,
        }
