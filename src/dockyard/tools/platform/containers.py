"""Dockyard's own containers: servers and deployments by the label ``dockyard.…``, tool servers among them."""

from __future__ import annotations

import difflib
from typing import Annotated, Any

from msgspec import Meta

from dockyard.errors import InvalidRequest, NotFound
from dockyard.tools.platform.engine import NAME, EngineApi, lines, path_of

OWN = "dockyard."
"""What labels begin with that mark a container as Dockyard's."""
PROJECT = "com.docker.compose.project"
STACK = "com.docker.stack.namespace"

Name = Annotated[str, Meta(min_length=1, max_length=255, description="Name or id of a container.")]
Patience = Annotated[int, Meta(ge=0, le=600, description="Seconds that it gets to end by itself.")]


class Containers:
    """The tools. All raise EngineUnavailable where no engine answers; those with a name NotFound."""

    def __init__(self, api: EngineApi | None = None) -> None:
        self._api = api or EngineApi()

    async def list_containers(self, running: bool = False) -> dict[str, Any]:
        """List the containers of Dockyard: name, image, state, health and which deployment they belong to.

        Args:
            running: Only those that run now.
        """
        found = await self._api.get("/containers/json", all=str(not running).lower())
        return {"containers": [_row(one) for one in found if _own(one.get("Labels"))]}

    async def inspect_container(self, name: Name) -> dict[str, Any]:
        """Show how a container of Dockyard was made and how it is; values of environment variables are left out."""
        return _told(await self._one(name))

    async def container_logs(
        self, name: Name, tail: Annotated[int, Meta(ge=1, le=2000, description="How many last lines.")] = 100
    ) -> str:
        """Show the last lines that a container of Dockyard wrote, with their times."""
        one = await self._one(name)
        query = {"stdout": "true", "stderr": "true", "timestamps": "true", "tail": str(tail)}
        data = await self._api.send("GET", path_of(one["Id"], "logs"), query)
        return lines(data, framed=not one["Config"].get("Tty")) or f"{name} wrote nothing"

    async def container_stats(self, name: Name) -> dict[str, Any]:
        """Measure a container of Dockyard for about a second: processor, memory, network, processes."""
        one = await self._one(name)
        if not one["State"].get("Running"):
            raise InvalidRequest(f"container {name!r} does not run", param="name")
        return _usage(await self._api.get(path_of(one["Id"], "stats"), stream="false"))

    async def start_container(self, name: Name) -> dict[str, Any]:
        """Start a container of Dockyard that has ended; one that runs is left as it is."""
        return await self._do(name, "start", {})

    async def stop_container(self, name: Name, seconds: Patience = 30) -> dict[str, Any]:
        """Stop a container of Dockyard; what it is answering then may be lost after the seconds that it gets."""
        return await self._do(name, "stop", {"t": seconds})

    async def restart_container(self, name: Name, seconds: Patience = 30) -> dict[str, Any]:
        """Stop a container of Dockyard and start it again."""
        return await self._do(name, "restart", {"t": seconds})

    async def _do(self, name: str, verb: str, query: dict[str, Any]) -> dict[str, Any]:
        one = await self._one(name)
        await self._api.send("POST", path_of(one["Id"], verb), query, seconds=30 + query.get("t", 0))
        return _told(await self._one(one["Id"]))

    async def _one(self, name: str) -> dict[str, Any]:
        """A container that is Dockyard's. Raises NotFound for any other, without a word about it."""
        found: Any = None
        if NAME.fullmatch(name):
            try:
                found = await self._api.get(path_of(name, "json"))
            except NotFound:
                found = None
        if found is None or not _own(found["Config"].get("Labels")):
            there = [one["name"] for one in (await self.list_containers())["containers"]]
            near = difflib.get_close_matches(name, there, n=1)
            raise NotFound(
                f"Dockyard has no container {name!r}",
                param="name",
                hint=f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(there) or 'none'}",
            )
        return dict(found)


def _own(labels: dict[str, str] | None) -> bool:
    return any(label.startswith(OWN) for label in labels or {})


def _belongs(labels: dict[str, str] | None) -> dict[str, str]:
    """What a container is, and of which deployment."""
    labels = labels or {}
    kind = "tool" if f"{OWN}tool" in labels else labels.get(f"{OWN}component", "")
    deployment = labels.get(f"{OWN}deployment") or labels.get(PROJECT) or labels.get(STACK) or ""
    told = {"kind": kind, "deployment": deployment, "tool": labels.get(f"{OWN}tool", "")}
    return {key: value for key, value in told.items() if value}


def _row(one: dict[str, Any]) -> dict[str, Any]:
    ports = sorted(
        {f"{port['PublicPort']}:{port['PrivatePort']}" for port in one.get("Ports") or () if port.get("PublicPort")}
    )
    return {
        "name": str((one.get("Names") or ["?"])[0]).lstrip("/"),
        "id": one["Id"][:12],
        "image": one.get("Image", ""),
        "state": one.get("State", ""),
        "status": one.get("Status", ""),
        **_belongs(one.get("Labels")),
        **({"ports": ports} if ports else {}),
    }


def _told(one: dict[str, Any]) -> dict[str, Any]:
    """The parts that help to run it. Variables have names only: their values may be keys."""
    state, config, host = one["State"], one["Config"], one.get("HostConfig") or {}
    health = state.get("Health") or {}
    last = (health.get("Log") or [{}])[-1]
    told = {
        "name": str(one["Name"]).lstrip("/"),
        "id": one["Id"][:12],
        "image": config.get("Image", ""),
        "state": state.get("Status", ""),
        "health": health.get("Status", ""),
        "health_output": str(last.get("Output", ""))[:500].strip(),
        "exit_code": state.get("ExitCode", 0),
        "out_of_memory": bool(state.get("OOMKilled")),
        "error": state.get("Error", ""),
        "started": state.get("StartedAt", ""),
        "finished": state.get("FinishedAt", "") if not state.get("Running") else "",
        "restarts": one.get("RestartCount", 0),
        "restart_policy": (host.get("RestartPolicy") or {}).get("Name", ""),
        "command": [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())],
        "variables": sorted(item.partition("=")[0] for item in config.get("Env") or ()),
        "memory_limit": host.get("Memory", 0),
        "cpu_limit": host.get("NanoCpus", 0) / 1e9,
        "mounts": [
            f"{mount.get('Name') or mount.get('Source', '')}:{mount.get('Destination', '')}"
            for mount in one.get("Mounts") or ()
        ],
        **_belongs(config.get("Labels")),
    }
    return {key: value for key, value in told.items() if value not in ("", [], None)}


def _usage(stats: dict[str, Any]) -> dict[str, Any]:
    """One measurement, the way ``docker stats`` reckons: memory without the file cache that can be given back.

    Processor: time used by the container over time of the whole machine between the two samples, times its cores.
    """
    now, before = stats.get("cpu_stats") or {}, stats.get("precpu_stats") or {}
    used = _deep(now, "cpu_usage", "total_usage") - _deep(before, "cpu_usage", "total_usage")
    whole = _deep(now, "system_cpu_usage") - _deep(before, "system_cpu_usage")
    cores = _deep(now, "online_cpus") or len((now.get("cpu_usage") or {}).get("percpu_usage") or ()) or 1
    memory = stats.get("memory_stats") or {}
    details = memory.get("stats") or {}
    cache = details.get("inactive_file", details.get("total_inactive_file", 0))
    networks = (stats.get("networks") or {}).values()
    return {
        "name": str(stats.get("name", "")).lstrip("/"),
        "cpu_percent": round(100 * used / whole * cores, 2) if used > 0 and whole > 0 else 0.0,
        "memory_bytes": max(0, memory.get("usage", 0) - cache),
        "memory_limit_bytes": memory.get("limit", 0),
        "received_bytes": sum(each.get("rx_bytes", 0) for each in networks),
        "sent_bytes": sum(each.get("tx_bytes", 0) for each in networks),
        "processes": (stats.get("pids_stats") or {}).get("current", 0),
    }


def _deep(value: Any, *path: str) -> int:
    for key in path:
        value = (value or {}).get(key)
    return int(value or 0)
