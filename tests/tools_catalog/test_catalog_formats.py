"""Other people's catalogues: what is read of them, what is left out and named, and that nothing is lost on the way."""

from __future__ import annotations

import json

import pytest
import yaml

from dockyard.errors import InvalidRequest
from dockyard.tools import catalog
from dockyard.tools.catalog.settle import missing, settled, wanted
from dockyard.tools.model import Sandbox, Secret, Server

DOCKER = """
name: docker-mcp
displayName: Docker's
registry:
  my-db:
    type: server
    title: DB helper
    image: myorg/db@sha256:abc
    command: ["--transport=stdio", "{{my-db.paths|volume-target|into}}"]
    volumes: ["{{my-db.paths|volume|into}}"]
    secrets: [{name: my-db.api_key, env: DB_API_KEY}]
    env: [{name: DB_HOST, value: "{{my-db.host}}"}, {name: AT, value: 12:30}]
    allowHosts: ["db.example.com:443"]
    config: [{name: my-db, type: object, properties: {host: {type: string}}, required: [host]}]
    metadata: {pulls: 12, added: 2025-01-01}
  docs-remote:
    type: remote
    remote: {url: https://x/mcp, transport_type: streamable-http, headers: {Authorization: "Bearer ${TOKEN}"}}
  odd: {type: alien}
  my-db: {image: again}
  shots: {type: poci, tools: [{name: a, container: {image: z}}]}
  flat: just words
"""


def test_docker_entries_become_servers_and_what_is_odd_is_named_with_its_line() -> None:
    found = catalog.parse(DOCKER, "c.yaml")
    db, docs, shots = found.servers
    assert (found.format, found.name, found.title) == ("docker", "docker-mcp", "Docker's")
    assert (db.kind, db.image, db.source) == ("container", "myorg/db@sha256:abc", "c.yaml")
    assert db.secrets == (Secret(name="my-db.api_key", env="DB_API_KEY"),)
    assert db.env == {"DB_HOST": "{{my-db.host}}", "AT": "12:30"}
    assert db.sandbox.hosts == ("db.example.com:443",)
    assert (docs.kind, docs.url, docs.transport) == ("remote", "https://x/mcp", "http")
    assert docs.secrets == (Secret(name="TOKEN"),)
    assert shots.kind == "poci"
    told = {problem.where: problem for problem in found.problems}
    assert set(told) == {"odd", "my-db", "flat"}
    assert "'alien'" in told["odd"].message
    assert told["odd"].line == DOCKER[: DOCKER.index("odd:")].count("\n") + 1
    assert "twice" in told["my-db"].message
    assert told["my-db"].line > told["odd"].line
    assert "should be a table" in told["flat"].message


def test_docker_entries_are_written_as_they_were_but_for_what_changed() -> None:
    import msgspec

    found = catalog.parse(DOCKER)
    again = yaml.safe_load(catalog.write(found, "docker"))
    before = yaml.load(DOCKER, Loader=yaml.BaseLoader)["registry"]
    assert set(again["registry"]) == {"my-db", "docs-remote", "shots"}
    assert again["registry"]["shots"] == before["shots"]
    assert again["registry"]["my-db"]["metadata"] == {"pulls": 12, "added": "2025-01-01"}
    changed = msgspec.structs.replace(found.servers[0], image="other@sha256:def", env={})
    entry = yaml.safe_load(catalog.write([changed], "docker"))["registry"]["my-db"]
    assert entry["image"] == "other@sha256:def"
    assert "env" not in entry
    assert entry["config"] == again["registry"]["my-db"]["config"]


def test_lists_of_snapshots_are_catalogues_too() -> None:
    entry = {"name": "clock", "type": "server", "image": "mcp/time@sha256:1"}
    text = json.dumps({"ref": "a/b", "title": "T", "servers": [{"type": "image", "snapshot": {"server": entry}}, {}]})
    found = catalog.parse(text)
    assert [server.name for server in found.servers] == ["clock"]
    assert found.title == "T"
    assert [problem.where for problem in found.problems] == ["servers[1]"]


WEATHER = {
    "$schema": "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json",
    "name": "io.github.u/weather",
    "description": "Weather",
    "version": "1.2.0",
    "packages": [
        {"registryType": "nuget", "identifier": "W", "version": "1.0.0", "transport": {"type": "stdio"}},
        {
            "registryType": "pypi",
            "identifier": "weather-mcp",
            "version": "1.2.0",
            "fileSha256": "ab" * 32,
            "transport": {"type": "stdio"},
            "environmentVariables": [
                {"name": "KEY", "isSecret": True, "isRequired": True},
                {"name": "CITY", "isRequired": True, "description": "Which city"},
                {"name": "UNIT", "default": "C"},
            ],
            "packageArguments": [
                {"type": "named", "name": "--port", "value": "8"},
                {"type": "named", "name": "--quiet"},
                {"type": "positional", "valueHint": "folder", "isRequired": True},
            ],
        },
    ],
    "_meta": {"publisher": {"x": 1}},
}


def test_a_server_json_becomes_a_package_with_what_its_user_must_give() -> None:
    (server,) = catalog.parse(json.dumps(WEATHER)).servers
    assert (server.name, server.kind, server.package) == ("weather", "package", "pypi:weather-mcp==1.2.0")
    assert server.hashes == ("sha256:" + "ab" * 32,)
    assert server.command == ("--port", "8", "--quiet", "{{weather.folder}}")
    assert server.secrets == (Secret(name="weather.KEY", env="KEY"),)
    assert wanted(server)["required"] == ["CITY", "folder"]
    assert missing(server) == ["CITY", "folder"]
    import msgspec

    run = settled(msgspec.structs.replace(server, config={"CITY": "Graz", "folder": "/d"}))
    assert run.env == {"CITY": "Graz", "UNIT": "C"}
    assert run.command[-1] == "/d"
    assert json.loads(catalog.write([server], "registry")) == WEATHER


def test_remotes_images_and_answers_of_the_registry_are_read() -> None:
    remote = {
        "name": "com.x/api",
        "description": "d",
        "version": "1",
        "remotes": [
            {
                "type": "sse",
                "url": "https://{tenant}.x.com/sse",
                "variables": {"tenant": {"isRequired": True}},
                "headers": [
                    {"name": "X-Key", "value": "{key}", "variables": {"key": {"isSecret": True}}},
                    {"name": "Authorization", "value": "Bearer {token}", "variables": {"token": {"isSecret": True}}},
                ],
            }
        ],
    }
    image = {"name": "x/i", "version": "2", "packages": [{"registryType": "oci", "identifier": "ghcr.io/x/i:2"}]}
    old = {"name": "x/o", "version": "3", "packages": [{"registry_type": "npm", "identifier": "@x/o", "version": "3"}]}
    odd = {"name": "x/n", "version": "1", "packages": [{"registryType": "nuget", "identifier": "N"}]}
    answer = {"servers": [{"server": one, "_meta": {}} for one in (remote, image, old, odd)], "metadata": {}}
    found = catalog.parse(json.dumps(answer))
    api, container, npm = found.servers
    assert (api.kind, api.transport, api.url) == ("remote", "sse", "https://{{api.tenant}}.x.com/sse")
    assert api.secrets == (Secret(name="api.key", header="X-Key"), Secret(name="api.token"))
    assert api.headers == {"Authorization": "Bearer ${api.token}"}
    assert (container.kind, container.image) == ("container", "ghcr.io/x/i:2")
    assert npm.package == "npm:@x/o@3"
    assert [(one.where, "nuget" in one.message) for one in found.problems] == [("x/n", True)]
    assert catalog.parse(json.dumps({"server": image, "_meta": {}})).servers == (container,)


CLIENT = """{ // my servers
 "mcpServers": {
  "fs": {"command": "npx", "args": ["-y", "@m/server-fs@1.2.0", "/tmp"], "env": {"K": "${KEY}", "L": "1"},
         "disabled": true,},
  "py": {"command": "/usr/bin/uvx", "args": ["mcp-server-time@2026.1.1", "--local"]},
  "gh": {"command": "docker", "args": ["run", "-i", "--rm", "-e", "TOKEN", "-v", "/a:/a:ro", "ghcr.io/x/y", "go"],
         "env": {"TOKEN": "${input:tok}"}},
  "host": {"command": "docker", "args": ["run", "--privileged", "x"]},
  "api": {"url": "https://h/mcp", "headers": {"A": "Bearer ${env:T}"}},
  "old": {"type": "sse", "url": "https://h/sse"},
  "my server": {"command": "python", "args": ["s.py"]},
  "bad": {"type": "carrier-pigeon"},
  "none": {}
 }
}"""


def test_client_files_become_packages_containers_remotes_and_processes() -> None:
    found = catalog.parse(CLIENT)
    by_name = {server.name: server for server in found.servers}
    assert (by_name["fs"].kind, by_name["fs"].package) == ("package", "npm:@m/server-fs@1.2.0")
    assert by_name["fs"].secrets == (Secret(name="KEY", env="K"),)
    assert by_name["fs"].env == {"L": "1"}
    assert (by_name["py"].package, by_name["py"].command) == ("pypi:mcp-server-time==2026.1.1", ("--local",))
    assert (by_name["gh"].image, by_name["gh"].command) == ("ghcr.io/x/y", ("go",))
    assert by_name["gh"].volumes == ("/a:/a:ro",)
    assert by_name["gh"].secrets == (Secret(name="tok", env="TOKEN"),)
    assert by_name["host"].kind == "process"
    assert by_name["api"].headers == {"A": "Bearer ${T}"}
    assert by_name["api"].secrets == (Secret(name="T"),)
    assert by_name["old"].transport == "sse"
    assert by_name["my-server"].command == ("python", "s.py")
    assert {problem.where for problem in found.problems} == {"bad", "none"}
    again = json.loads(catalog.write(found, "mcp-servers"))["mcpServers"]
    before = json.loads(catalog.reading.without_comments(CLIENT))["mcpServers"]
    assert again == {name: entry for name, entry in before.items() if name not in ("bad", "none")}


def test_vs_code_and_zed_files_are_read() -> None:
    code = '{"inputs": [{"id": "k"}], "servers": {"a": {"type": "http", "url": "https://h/${input:k}"}}}'
    found = catalog.parse(code)
    assert found.servers[0].secrets == (Secret(name="k"),)
    assert json.loads(catalog.write(found, "mcp-servers")) == json.loads(code)
    zed = '{"context_servers": {"z": {"command": {"path": "node", "args": ["x.js"], "env": {"A": "1"}}}}}'
    (server,) = catalog.parse(zed).servers
    assert (server.command, server.env) == (("node", "x.js"), {"A": "1"})


def test_our_format_has_every_kind_and_docker_s_refuses_those_it_has_no_type_for() -> None:
    servers = [
        Server(
            name="files",
            kind="process",
            command=("srv", "/d"),
            sandbox=Sandbox(read=("/d",), hosts=("h:1",), memory=1 << 20),
            labels={"*": ("private-data",)},
            call_seconds=5.0,
        ),
        Server(name="clock", kind="package", package="pypi:x==1", hashes=("sha256:1",)),
        Server(name="pets", kind="openapi", url="https://p/openapi.json"),
        Server(name="fun", kind="function", command=("m:f",)),
    ]
    again = catalog.parse(catalog.write(servers, "dockyard"))
    assert again.format == "dockyard"
    assert not again.problems
    assert [(one.name, one.kind, one.sandbox, one.labels, one.call_seconds) for one in again.servers] == [
        (one.name, one.kind, one.sandbox, one.labels, one.call_seconds) for one in servers
    ]
    with pytest.raises(InvalidRequest, match="files, clock, pets, fun: docker"):
        catalog.write(servers, "docker")
    left, problems = catalog.only(again, "registry")
    assert [one.name for one in left.servers] == ["clock"]
    assert len(problems) == 3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("registry:\n  a: {image: x\n  b: y\n", "line 3"),
        ("registry:\n\ta: 1\n", "line 2"),
        ('{"registry": {\n "a": nope}}', "line 2"),
        ("registry: [1, 2]\n", "should be a table (line 1)"),
        ("a: &x [*x]\n", "line 1: contains itself"),
        ("a: &x {b: *x}\n", "contains itself"),
        ("", "empty"),
        ("just words", "no catalogue"),
        ("[" * 5000, "not JSON"),
        ("- " * 300 + "x", "nested too deep"),
        ("? [a]\n: b\n", "a key must be text"),
        ('{"a": NaN}', "NaN is no JSON number"),
        ("registry: !!python/object/apply:os.system [ls]\n", "should be a table"),
    ],
)
def test_what_is_no_catalogue_is_refused_with_the_place(text: str, told: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        catalog.parse(text)
    assert told in caught.value.message


def test_a_small_text_can_t_become_a_huge_value() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(InvalidRequest, match="too much"):
        catalog.parse("\n".join(lines))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("command", {"a": 1}),
        ("env", ["A=1"]),
        ("env", [{"value": "x"}]),
        ("secrets", "KEY"),
        ("image", ["x"]),
        ("sandbox", {"memory": "much"}),
        ("labels", {"*": ["nice"]}),
        ("remote", "https://x"),
    ],
)
def test_a_field_of_the_wrong_kind_is_named_and_the_others_go_on(field: str, value: object) -> None:
    kind = "remote" if field == "remote" else "server"
    text = json.dumps({"registry": {"bad": {"type": kind, field: value}, "good": {"image": "x"}}})
    found = catalog.parse(text)
    assert [server.name for server in found.servers] == ["good"]
    assert [problem.where for problem in found.problems] == ["bad"]


def test_names_that_become_the_same_are_told_apart() -> None:
    found = catalog.parse('{"mcpServers": {"a b": {"command": "x"}, "A-b": {"command": "y"}}}')
    assert [server.command for server in found.servers] == [("x",)]
    assert "same name as 'a b'" in found.problems[0].message


@pytest.mark.parametrize(
    ("text", "config", "value"),
    [
        ("{{s.paths|volume|into}}", {"paths": ["/a", "/b"]}, ("/a:/a", "/b:/b")),
        ("{{s.paths|volume-target|into}}", {"paths": ["/a"]}, ("/a",)),
        ("{{s.path|mount_as:/data}}", {"path": "/a"}, ("/a:/data",)),
        ("--x={{s.host|or:localhost}}", {}, ("--x=localhost",)),
        ("{{s.paths|first}}", {"paths": ["/a", "/b"]}, ("/a",)),
        ("{{s.paths|last}}", {"paths": ["/a", "/b"]}, ("/b",)),
        ("{{ s.deep.er }}", {"deep": {"er": 3}}, ("3",)),
        ("{{s.none|volume|into}}", {}, ()),
    ],
)
def test_templates_are_filled(text: str, config: dict[str, object], value: tuple[str, ...]) -> None:
    assert settled(Server(name="s", kind="container", command=(text,), config=config)).command == value


def test_templates_that_make_no_sense_are_refused() -> None:
    for text in ("{{s.x|explode}}", "{{s x}}"):
        with pytest.raises(InvalidRequest):
            settled(Server(name="s", kind="container", command=(text,)))
    with pytest.raises(InvalidRequest, match="needs configuration: host"):
        settled(catalog.parse(DOCKER).servers[0])
