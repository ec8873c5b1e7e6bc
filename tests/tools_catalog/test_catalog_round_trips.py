"""Whatever is read can be written and read again, and is then the same; no text makes the reader fail oddly."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dockyard.errors import InvalidRequest
from dockyard.tools import catalog
from dockyard.tools.catalog.reading import document, dump_yaml
from dockyard.tools.model import Sandbox, Secret, Server

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=12)
plain = words.filter(lambda text: "${" not in text and "{{" not in text)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9.-]{0,10}[A-Za-z0-9]", fullmatch=True)
variables = st.from_regex(r"[A-Z][A-Z0-9_]{0,8}", fullmatch=True)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
labels = st.lists(st.sampled_from(["untrusted-in", "private-data", "external-out", "destructive"]), max_size=2)
sandboxes = st.builds(
    Sandbox,
    read=st.lists(plain, max_size=2).map(tuple),
    hosts=st.lists(plain, max_size=2, unique=True).map(tuple),
    memory=st.integers(1, 1 << 40),
    cpus=st.floats(0.1, 8),
)
secrets = st.lists(st.builds(Secret, name=names, env=variables), max_size=2).map(tuple)


def base(kind: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Server]:
    common = {
        "name": names,
        "title": plain,
        "description": plain,
        "command": st.lists(plain, max_size=3).map(tuple),
        "env": st.dictionaries(variables, plain, max_size=3),
        "secrets": secrets,
        "sandbox": sandboxes,
        "labels": st.dictionaries(words, labels.map(tuple), max_size=2),
        "call_seconds": st.floats(0.5, 100),
        "config": st.dictionaries(words, json_values, max_size=2),
    }
    return st.builds(Server, kind=st.just(kind), **{**common, **fields})


servers = st.one_of(
    base("process", cwd=plain),
    base("package", package=st.just("pypi:a==1"), hashes=st.lists(plain, max_size=2).map(tuple)),
    base("container", image=st.just("a/b:1"), volumes=st.lists(plain, max_size=2).map(tuple), user=plain),
    base("openapi", url=plain),
    base(
        "remote",
        url=st.just("https://x/y"),
        transport=st.sampled_from(["http", "sse"]),
        headers=st.dictionaries(variables, plain, max_size=2),
    ),
)


@given(st.lists(servers, max_size=4, unique_by=lambda server: server.name.lower()))
def test_our_format_keeps_servers_whole(given_: list[Server]) -> None:
    again = catalog.parse(catalog.write(given_, "dockyard"))
    assert [msgspec.structs.replace(one, extra={}) for one in again.servers] == given_
    assert catalog.parse(catalog.write(again, "dockyard")) == again


entries = st.fixed_dictionaries(
    {"type": st.just("server"), "image": plain},
    optional={
        "title": plain,
        "command": st.lists(words, max_size=3),
        "volumes": st.lists(words, max_size=2),
        "env": st.lists(st.fixed_dictionaries({"name": variables, "value": plain}), max_size=2),
        "secrets": st.lists(st.fixed_dictionaries({"name": names, "env": variables}), max_size=2),
        "allowHosts": st.lists(words, max_size=2),
        "tools": st.lists(st.fixed_dictionaries({"name": names, "description": words}), max_size=2),
        "metadata": st.dictionaries(words, json_values, max_size=2),
        "longLived": st.booleans(),
        "oauth": json_values,
    },
)


@given(st.dictionaries(names, entries, min_size=1, max_size=3).filter(lambda d: len({k.lower() for k in d}) == len(d)))
def test_docker_s_catalogue_comes_back_as_it_was(registry: dict[str, Any]) -> None:
    found = catalog.parse(dump_yaml({"name": "n", "registry": registry, "further": [1]}))
    assert not found.problems
    written = yaml.safe_load(catalog.write(found, "docker"))
    assert written == {"name": "n", "registry": registry, "further": [1]}


clients = st.dictionaries(
    names,
    st.one_of(
        st.fixed_dictionaries(
            {"command": st.sampled_from(["npx", "uvx", "docker", "python", "/bin/x"])},
            optional={
                "args": st.lists(
                    st.sampled_from(["-y", "run", "-i", "--rm", "-e", "A", "-v", "a:b", "pkg@1.0", "x", "--q"])
                ),
                "env": st.dictionaries(variables, words | st.just("${X}") | st.just("${input:y}"), max_size=2),
                "disabled": st.booleans(),
                "alwaysAllow": st.lists(words, max_size=2),
            },
        ),
        st.fixed_dictionaries(
            {"url": st.just("https://h/${env:T}")},
            optional={"headers": st.dictionaries(variables, words, max_size=2), "timeout": st.integers(0, 9)},
        ),
    ),
    min_size=1,
    max_size=3,
).filter(lambda found: len({name.lower() for name in found}) == len(found))


@given(clients)
def test_client_files_come_back_as_they_were(servers_: dict[str, Any]) -> None:
    found = catalog.parse(json.dumps({"mcpServers": servers_, "theme": "dark"}))
    assert not found.problems
    assert json.loads(catalog.write(found, "mcp-servers")) == {"mcpServers": servers_, "theme": "dark"}


@given(json_values)
def test_yaml_that_we_write_means_the_same_to_us_and_to_others(value: Any) -> None:
    text = dump_yaml({"v": value})
    assert document(text).value == {"v": value}
    assert yaml.safe_load(text) == {"v": value}


@given(st.text(max_size=200) | st.binary(max_size=100).map(lambda data: data.decode("latin-1")))
def test_no_text_makes_the_reader_fail_oddly(text: str) -> None:
    with contextlib.suppress(InvalidRequest):
        catalog.parse(text)


@pytest.mark.parametrize("key", ["registry", "mcpServers", "servers", "packages"])
@given(value=json_values)
def test_no_value_makes_a_format_fail_oddly(key: str, value: Any) -> None:
    with contextlib.suppress(InvalidRequest):
        found = catalog.parse(json.dumps({"name": "n", key: value}))
        assert all(problem.message for problem in found.problems)


@given(st.dictionaries(words, json_values, max_size=4))
def test_no_entry_makes_a_format_fail_oddly(entry: dict[str, Any]) -> None:
    for kind in ("server", "remote", "process", "poci"):
        catalog.parse(json.dumps({"registry": {"a": {**entry, "type": kind}}}))
    catalog.parse(json.dumps({"mcpServers": {"a": {"command": "x", **entry}}}))
