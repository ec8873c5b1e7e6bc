"""Structs that cross layers. All are frozen but ``Call``, the one mutable record of a request's walk.

Wire formats do not appear here: a dialect in ``api/`` translates to ``Call`` and from ``Chunk``.
Sizes are bytes, times are seconds, and prices US dollars, unless a name says otherwise.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

import msgspec

Json = Any
"""A value that came from JSON: dict, list, str, int, float, bool or None."""

Kind = Literal[
    "chat", "complete", "embed", "rerank", "tokenize", "detokenize", "template", "image", "speak", "transcribe"
]
"""What a caller wants of a model; an engine's ``serves`` is a set of these."""

Mode = Literal["generate", "embed", "rerank"]
"""How a model is loaded: engines that compute embeddings or scores load it otherwise than to generate."""

Lane = Literal["interactive", "batch"]
"""Batch work takes what interactive work leaves, and yields to it."""

Format = Literal["gguf", "safetensors", "onnx", "openvino", "peft", "unknown"]


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """A fully qualified artifact name: ``registry/repository[:tag][@digest]``; parsed in ``artifact.reference``.

    ``tag`` is None only where ``digest`` is given. ``registry`` is a host with an optional port."""

    registry: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    def __str__(self) -> str:
        text = f"{self.registry}/{self.repository}"
        if self.tag is not None:
            text += f":{self.tag}"
        if self.digest is not None:
            text += f"@{self.digest}"
        return text


class Descriptor(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """An OCI content descriptor (image-spec, descriptor.md): what a blob is, how long it is and its digest."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] = {}
    artifact_type: str | None = None
    urls: tuple[str, ...] = ()
    data: str | None = None


class ModelFacts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a model's headers say of it, read without loading weights. A field no header states is None.

    ``parameters`` counts weights; ``context`` is the trained window in tokens; ``head_size`` is the width of one
    attention head; ``positional`` names the encoding ("rope", "alibi", "learned", …); ``attention`` is "multi-head",
    "grouped-query" or "multi-query"; ``tensors`` maps each part of the network ("embedding", "attention",
    "feed-forward", "norm", "output", "other") to its bytes on disk, ``weights`` to its count of weights;
    ``kv_elements`` is how many keys and values one token adds to the KV cache, all layers together."""

    format: Format
    architecture: str | None = None
    name: str | None = None
    parameters: int | None = None
    quantization: str | None = None
    context: int | None = None
    layers: int | None = None
    embedding: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    head_size: int | None = None
    attention: str | None = None
    positional: str | None = None
    rope_base: float | None = None
    feed_forward: int | None = None
    experts: int | None = None
    vocabulary: int | None = None
    tokenizer: str | None = None
    chat_template: str | None = None
    licence: str | None = None
    weight_bytes: int = 0
    tensors: dict[str, int] = {}
    weights: dict[str, int] = {}
    kv_elements: int | None = None
    capabilities: tuple[str, ...] = ()
    base: str | None = None
    adapter_rank: int | None = None
    adapter_alpha: float | None = None
    adapter_targets: tuple[str, ...] = ()


class Adapter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A low-rank adapter that a request may choose by ``name``: its folder (PEFT) or file (GGUF) and its manifest's
    digest; ``scale`` multiplies the adapter's own factor (alpha / rank)."""

    name: str
    path: str
    digest: str
    scale: float = 1.0


class ModelFiles(msgspec.Struct, frozen=True, kw_only=True):
    """A model laid out for an engine: real files in ``directory``, hard links to the store's blobs.

    ``weights`` are absolute paths, first shard first. ``adapters`` are always on; ``offers`` are those a request may
    choose. ``digest`` is the manifest's and names the model for good.
    ``config`` is the artifact's own serving advice (context size, template …), never a command line. ``defaults`` hold
    for requests that say nothing else."""

    reference: str
    digest: str
    directory: str
    format: Format
    weights: tuple[str, ...]
    facts: ModelFacts
    projector: str | None = None
    adapters: tuple[str, ...] = ()
    offers: tuple[Adapter, ...] = ()
    chat_template: str | None = None
    context: int | None = None
    defaults: Defaults | None = None


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls: a key's name and what it may do. ``scopes`` holds "infer" and/or "manage"."""

    name: str
    scopes: frozenset[str] = frozenset({"infer"})
    models: tuple[str, ...] = ()


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One turn of a conversation, as OpenAI's chat schema has it; parts and tool calls stay JSON."""

    role: str
    content: str | list[Json] | None = None
    name: str | None = None
    tool_calls: list[Json] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None


class Sampling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How tokens are drawn. None means: the model's or engine's own default.

    ``logprobs`` is how many alternatives to report for each token (0: just the chosen one; None: no logprobs).
    ``prompt_logprobs`` is the same for the tokens of the prompt from place ``prompt_logprobs_from`` on, reported in
    ``Result.prompt_logprobs``."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: int | None = None
    n: int = 1
    ignore_eos: bool = False
    prompt_logprobs: int | None = None
    prompt_logprobs_from: int = 0


class Defaults(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an artifact is to be served with where a request says nothing: a system prompt for conversations without
    one, turns that come before all conversations, sampling, and fields of ``Request.extra``."""

    system: str | None = None
    messages: tuple[Message, ...] = ()
    sampling: Sampling = Sampling()
    extra: dict[str, Json] = {}


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an engine is asked to do. Which fields count depends on ``kind``:

    - chat: ``messages``; complete: ``prompt``, and ``suffix`` where the middle is to be filled in;
    - embed: ``inputs``, one vector each; rerank: ``query`` and the documents in ``inputs``, one score each;
    - tokenize: ``prompt`` (text) or ``messages`` (put through the template first); detokenize: ``prompt`` (token ids);
    - template: ``messages``, answered with the text that the model would see.

    ``prompt`` may be text or token ids. ``adapter`` is one of ``ModelFiles.offers``. ``extra`` holds fields in OpenAI's
    chat shape that the engine's allow-list lets through (``tools``, ``response_format``, ``chat_template_kwargs`` …),
    whatever dialect they came from. ``counting`` asks for ``Chunk.so_far``."""

    id: str
    kind: Kind = "chat"
    messages: tuple[Message, ...] | None = None
    prompt: str | list[int] | None = None
    sampling: Sampling = Sampling()
    extra: dict[str, Json] = {}
    suffix: str | None = None
    inputs: tuple[str | list[int], ...] = ()
    query: str | None = None
    adapter: Adapter | None = None
    counting: bool = False


class Usage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Tokens that an answer took; ``cached_tokens`` came from the KV prefix cache. Seconds are told by the engine."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    prefill_seconds: float | None = None
    decode_seconds: float | None = None


class TokenLogprob(msgspec.Struct, frozen=True, omit_defaults=True):
    """A token, its natural-log probability, its bytes, and the likeliest alternatives at that position."""

    token: str
    logprob: float
    bytes: list[int] | None = None
    top: list[TokenLogprob] = []


class Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an answer holds beside text.

    ``vectors``: for each input a vector of little-endian float32. ``scores``: for each document its relevance, higher
    is better. ``tokens``: the ids of a text. ``prompt_logprobs``: one entry a token of the prompt, None for the first;
    of those before ``Sampling.prompt_logprobs_from`` only the text says something."""

    vectors: tuple[bytes, ...] = ()
    scores: tuple[float, ...] = ()
    tokens: tuple[int, ...] = ()
    prompt_logprobs: tuple[TokenLogprob | None, ...] = ()


class Chunk(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one scheduler step added to choice ``index``. Text is whole UTF-8 characters, stop strings already cut.

    ``finish`` is "stop", "length", "tool_calls" or "content_filter" on a choice's last chunk, else None; ``usage``
    comes once, on the request's last chunk; ``so_far`` is that of the request until now. ``truncated``: prompt tokens
    dropped. ``tool_calls`` are deltas in OpenAI's shape: joined by ``index``, their arguments are valid JSON. Kinds
    other than chat and complete answer with one chunk: ``result`` (or ``text``), finish "stop" and usage. ``stop`` is
    the stop string that ended a choice, if known. ``annotations`` are citations of the choice's whole text."""

    text: str = ""
    index: int = 0
    finish: str | None = None
    usage: Usage | None = None
    logprobs: list[TokenLogprob] | None = None
    reasoning: str = ""
    tool_calls: list[Json] | None = None
    truncated: int = 0
    result: Result | None = None
    stop: str | None = None
    annotations: list[Json] | None = None
    so_far: Usage | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a guard says of a text: pass, change it (``text``) or block, and why."""

    action: Literal["pass", "replace", "block"] = "pass"
    reason: str = ""
    guard: str = ""
    text: str | None = None


class LoadOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How to load a model; None leaves the choice to the engine. ``flags`` are checked against its allow-list; one that
    is called ``ENGINE.flag`` is for that engine only.

    ``context`` is the window of one request, in tokens; ``parallel`` how many requests decode together. ``replicas``
    names the engine of each copy where there are several, e.g. ("llamacpp", "openvino"). ``cpus`` and ``memory``
    (bytes) bound what its workers may use. ``defaults`` hold for requests that say nothing else, before the artifact's.
    """

    engine: str | None = None
    mode: Mode = "generate"
    replicas: tuple[str, ...] = ()
    context: int | None = None
    parallel: int | None = None
    threads: int | None = None
    keep_alive: float | None = None
    cpus: float | None = None
    memory: int | None = None
    flags: dict[str, Json] = {}
    defaults: Defaults | None = None


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """A model's bytes of memory: its weights, its KV cache and the engine's workspace."""

    weights: int = 0
    kv_cache: int = 0
    workspace: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.workspace


class LoadedModel(msgspec.Struct, frozen=True, kw_only=True):
    """One row of ``dockyard ps``. Times are Unix seconds; ``measured`` is the worker's resident bytes as last seen.

    On the wire every field is there, so that scripts need no defaults of their own.
    ``state`` is "loading", "ready", "draining", "restarting" or "failed"; ``active`` and ``queued`` count requests.
    ``limits`` says what bounds its processor time and memory, if anything does."""

    reference: str
    digest: str
    engine: str
    state: str
    pid: int | None
    context: int
    parallel: int
    predicted: Memory
    measured: int | None = None
    active: int = 0
    queued: int = 0
    loaded_at: float | None = None
    load_seconds: float | None = None
    last_used: float | None = None
    expires_at: float | None = None
    restarts: int = 0
    reason: str = ""
    mode: Mode = "generate"
    limits: str = ""


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one pipeline step did with a call, for ``x-dockyard-*`` headers and the explain block."""

    name: str
    seconds: float
    outcome: str = "ok"


class Call(msgspec.Struct, kw_only=True):
    """A request on its way through the gateway; steps write what they learned.

    ``model`` is the name as asked, ``target`` the model that a route of the stack made of it, ``reference`` what is
    loaded; ``prompt`` (a ``stack.PromptUse``) goes around the chat, which is grounded in ``knowledge`` (``grounded``:
    in what was found); ``guards``, if not None, replace the server's own. ``keep_alive``: seconds in memory when this
    call has ended (0: leaves at once; negative: stays; None: as configured). ``context``: tokens that the loaded window
    must hold, else refused. ``cleanups`` run once, last first, however the call ends (awaited if need be); ``taps`` are
    shown each list of chunks that leaves."""

    request: Request
    model: str
    dialect: str
    stream: bool = False
    credential: str | None = None
    principal: Principal | None = None
    client: str = ""
    reference: str | None = None
    target: str | None = None
    prompt: Any = None
    knowledge: tuple[str, ...] = ()
    grounded: Any = None
    guards: tuple[Any, ...] | None = None
    no_store: bool = False
    lane: Lane = "interactive"
    keep_alive: float | None = None
    context: int | None = None
    received: float = msgspec.field(default_factory=time.monotonic)
    first_token: float | None = None
    usage: Usage = Usage()
    finish: str | None = None
    cache: str = "off"
    steps: list[Step] = []
    cleanups: list[Any] = []
    taps: list[Callable[[list[Chunk]], None]] = []
    chunks: AsyncIterator[list[Chunk]] | None = None


class Progress(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """News of long work: bytes of one item (its digest or name; steps if ``action`` is "step"), or a ``message``.

    ``value`` is a figure worth following, such as the loss at this step."""

    action: Literal["pull", "push", "pack", "load", "step", "note"] = "note"
    item: str = ""
    total: int = 0
    current: int = 0
    message: str = ""
    value: float | None = None


OnProgress = Callable[[Progress], None]
"""Called from any thread, often; must return fast. Raising ``Cancelled`` from it stops the work cleanly."""
