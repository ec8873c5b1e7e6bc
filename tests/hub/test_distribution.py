"""The cases of the OCI Distribution Spec's conformance list, by hand over HTTP."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from typing import Any

import httpx
import pytest

from .conftest import Hub, Start

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY = b"{}"


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def described(data: bytes, kind: str = "application/octet-stream") -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest_of(data), "size": len(data)}


def manifest(*layers: bytes, config: bytes = EMPTY, **more: Any) -> bytes:
    value = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": described(config, "application/vnd.oci.empty.v1+json"),
        "layers": [described(layer) for layer in layers],
        **more,
    }
    return json.dumps(value).encode()


def push(hub: Hub, name: str, tag: str, *layers: bytes, **more: Any) -> str:
    """Push blobs and a manifest; the manifest's digest."""
    for blob in (EMPTY, *layers):
        assert hub.push_blob(name, blob, digest_of(blob)).status_code == 201
    data = manifest(*layers, **more)
    put = hub.http.put(f"/v2/{name}/manifests/{tag}", content=data, headers={"content-type": MANIFEST})
    assert put.status_code == 201, put.text
    return digest_of(data)


def code_of(response: httpx.Response) -> str:
    (error,) = response.json()["errors"]
    assert error["message"]
    return str(error["code"])


def test_says_what_it_is(hub: Hub) -> None:
    for path in ("/v2/", "/v2"):
        found = hub.http.get(path)
        assert found.status_code == 200
        assert found.headers["docker-distribution-api-version"] == "registry/2.0"


def test_manifest_comes_back_byte_for_byte_by_tag_and_digest(hub: Hub, name: str) -> None:
    digest = push(hub, name, "v1", b"layer")
    for reference in ("v1", digest):
        got = hub.http.get(f"/v2/{name}/manifests/{reference}")
        head = hub.http.head(f"/v2/{name}/manifests/{reference}")
        assert got.content == manifest(b"layer")
        for answer in (got, head):
            assert answer.status_code == 200
            assert answer.headers["content-type"] == MANIFEST
            assert answer.headers["docker-content-digest"] == digest
            assert answer.headers["content-length"] == str(len(got.content))
    assert head.content == b""


def test_manifest_put_by_digest_needs_no_tag(hub: Hub, name: str) -> None:
    push(hub, name, "a", b"x")
    data = manifest(b"x", annotations={"a": "b"})
    path = f"/v2/{name}/manifests/{digest_of(data)}"
    put = hub.http.put(path, content=data, headers={"content-type": MANIFEST})
    assert put.status_code == 201
    assert put.headers["docker-content-digest"] == digest_of(data)
    assert hub.http.get(put.headers["location"]).content == data
    wrong = hub.http.put(f"/v2/{name}/manifests/{digest_of(b'no')}", content=data, headers={"content-type": MANIFEST})
    assert (wrong.status_code, code_of(wrong)) == (400, "DIGEST_INVALID")


def test_unknown_things_are_404_with_their_codes(hub: Hub, name: str) -> None:
    push(hub, name, "here", b"x")
    nothing = digest_of(b"nothing at all")
    for path, code in (
        (f"/v2/{name}/manifests/gone", "MANIFEST_UNKNOWN"),
        (f"/v2/{name}/manifests/{nothing}", "MANIFEST_UNKNOWN"),
        (f"/v2/{name}/manifests/.bad-tag", "MANIFEST_UNKNOWN"),
        (f"/v2/{name}/blobs/{nothing}", "BLOB_UNKNOWN"),
        (f"/v2/{name}-other/manifests/here", "NAME_UNKNOWN"),
        (f"/v2/{name}-other/tags/list", "NAME_UNKNOWN"),
        (f"/v2/{name}/blobs/uploads/{'0' * 32}", "BLOB_UPLOAD_UNKNOWN"),
        (f"/v2/{name}/nonsense", "UNSUPPORTED"),
    ):
        found = hub.http.get(path)
        assert (found.status_code, code_of(found)) == (404, code), path


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v2/Upper/tags/list", "NAME_INVALID"),
        ("/v2/a//b/tags/list", "NAME_INVALID"),
        ("/v2/a/%2e%2e/tags/list", "NAME_INVALID"),
        ("/v2/a/blobs/sha256:short", "DIGEST_INVALID"),
        ("/v2/a/blobs/md5:d41d8cd98f00b204e9800998ecf8427e", "DIGEST_INVALID"),
        ("/v2/a/referrers/latest", "DIGEST_INVALID"),
        ("/v2/a/tags/list?n=many", "NAME_UNKNOWN"),
        ("/v2/_catalog?n=many", "PAGINATION_NUMBER_INVALID"),
    ],
)
def test_nonsense_is_refused_by_name(hub: Hub, path: str, code: str) -> None:
    found = hub.http.get(path)
    assert found.status_code in (400, 404)
    assert code_of(found) == code


def test_a_manifest_that_is_wrong_leaves_the_store_as_it_was(hub: Hub, name: str) -> None:
    push(hub, name, "good", b"x")
    huge = b'{"schemaVersion":2,"pad":"' + b"x" * (4 << 20) + b'"}'
    negative = json.loads(manifest(b"x"))
    negative["layers"][0]["size"] = -5
    cases: tuple[tuple[bytes, int, str], ...] = (
        (b"not json", 400, "MANIFEST_INVALID"),
        (b"[]", 400, "MANIFEST_INVALID"),
        (json.dumps(negative).encode(), 400, "MANIFEST_INVALID"),
        (huge, 413, "SIZE_INVALID"),
        (manifest(b"never pushed"), 404, "MANIFEST_BLOB_UNKNOWN"),
    )
    for data, status, code in cases:
        put = hub.http.put(f"/v2/{name}/manifests/bad", content=data, headers={"content-type": MANIFEST})
        assert (put.status_code, code_of(put)) == (status, code)
    assert hub.http.get(f"/v2/{name}/tags/list").json()["tags"] == ["good"]
    bad_tag = hub.http.put(f"/v2/{name}/manifests/-x", content=manifest(b"x"), headers={"content-type": MANIFEST})
    assert (bad_tag.status_code, code_of(bad_tag)) == (400, "TAG_INVALID")


def test_monolithic_uploads(hub: Hub, name: str) -> None:
    data = random.Random(1).randbytes(3_000_000)
    one = hub.push_blob(name, data, digest_of(data))
    assert one.status_code == 201
    assert one.headers["docker-content-digest"] == digest_of(data)
    assert hub.http.get(one.headers["location"]).content == data
    other = data[::-1]
    begun = hub.http.post(f"/v2/{name}/blobs/uploads/")
    assert begun.status_code == 202
    put = hub.http.put(begun.headers["location"], params={"digest": digest_of(other)}, content=other)
    assert put.status_code == 201
    head = hub.http.head(f"/v2/{name}/blobs/{digest_of(other)}")
    assert head.headers["content-length"] == str(len(other))
    assert hub.http.get(begun.headers["location"]).status_code == 404


def test_chunked_upload_goes_on_where_it_stopped(hub: Hub, name: str) -> None:
    data = random.Random(2).randbytes(5_000_001)
    place = hub.http.post(f"/v2/{name}/blobs/uploads/", headers={"content-length": "0"}).headers["location"]
    first = hub.http.patch(place, content=data[:2_000_000], headers={"content-range": "0-1999999"})
    assert (first.status_code, first.headers["range"]) == (202, "0-1999999")
    status = hub.http.get(place)
    assert (status.status_code, status.headers["range"]) == (204, "0-1999999")
    for wrong in ("0-1999999", "2000001-5000000", "backwards", "9-1"):
        again = hub.http.patch(place, content=data[2_000_000:], headers={"content-range": wrong})
        assert (again.status_code, again.headers["range"]) == (416, "0-1999999")
    streamed = hub.http.patch(place, content=iter([data[2_000_000:3_000_000], data[3_000_000:4_000_000]]))
    assert (streamed.status_code, streamed.headers["range"]) == (202, "0-3999999")
    last = {"content-range": f"4000000-{len(data) - 1}"}
    put = hub.http.put(place, params={"digest": digest_of(data)}, content=data[4_000_000:], headers=last)
    assert put.status_code == 201
    assert hub.http.get(put.headers["location"]).content == data


def test_upload_outlives_a_restart_of_the_server(start_hub: Start) -> None:
    data = random.Random(3).randbytes(4_000_000)
    first = start_hub()
    place = first.http.post("/v2/t/restart/blobs/uploads/").headers["location"]
    first.http.patch(place, content=data[:2_500_000])
    first.process.kill()
    first.process.wait()
    second = start_hub(home=first.home)
    assert second.http.get(place).headers["range"] == "0-2499999"
    second.http.patch(place, content=data[2_500_000:])
    assert second.http.put(place, params={"digest": digest_of(data)}).status_code == 201
    assert second.store.blob_path(digest_of(data)).read_bytes() == data


def test_wrong_digest_ends_the_upload_and_keeps_nothing(hub: Hub, name: str) -> None:
    place = hub.http.post(f"/v2/{name}/blobs/uploads/").headers["location"]
    put = hub.http.put(place, params={"digest": digest_of(b"promised")}, content=b"sent")
    assert (put.status_code, code_of(put)) == (400, "DIGEST_INVALID")
    assert put.json()["errors"][0]["detail"]["found"] == digest_of(b"sent")
    assert not hub.store.has(digest_of(b"promised"))
    assert not hub.store.has(digest_of(b"sent"))
    assert hub.http.get(place).status_code == 404


def test_cancelled_upload_is_gone(hub: Hub, name: str) -> None:
    place = hub.http.post(f"/v2/{name}/blobs/uploads/").headers["location"]
    hub.http.patch(place, content=b"some")
    assert hub.http.delete(place).status_code == 204
    assert hub.http.get(place).status_code == 404
    assert not list(hub.store.incoming.glob(f"*{place.rpartition('/')[2]}*"))


def test_client_that_hangs_up_leaves_what_it_sent(hub: Hub, name: str) -> None:
    data = os.urandom(6_000_000)
    place = hub.http.post(f"/v2/{name}/blobs/uploads/").headers["location"]

    def half() -> Any:
        yield data[:4_000_000]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hub.http.patch(place, content=half())
    for _ in range(100):
        status = hub.http.get(place)
        held = int(status.headers["range"].split("-")[1]) + 1
        again = hub.http.patch(place, content=data[held:], headers={"content-range": f"{held}-{len(data) - 1}"})
        if again.status_code == 202:
            break
    assert held > 0
    assert hub.http.put(place, params={"digest": digest_of(data)}).status_code == 201


def test_mount_finds_what_is_here_already(hub: Hub, name: str) -> None:
    digest = digest_of(b"shared")
    hub.push_blob(name, b"shared", digest)
    path = f"/v2/{name}-b/blobs/uploads/"
    mounted = hub.http.post(path, params={"mount": digest, "from": name})
    assert mounted.status_code == 201
    assert hub.http.get(mounted.headers["location"]).content == b"shared"
    absent = hub.http.post(path, params={"mount": digest_of(b"absent"), "from": name})
    assert absent.status_code == 202
    assert "location" in absent.headers


def test_blob_ranges(hub: Hub, name: str) -> None:
    data = random.Random(4).randbytes(5_000_000)
    digest = digest_of(data)
    hub.push_blob(name, data, digest)
    path = f"/v2/{name}/blobs/{digest}"
    size = len(data)
    for text, first, last in (
        ("bytes=0-0", 0, 0),
        ("bytes=10-4999998", 10, 4_999_998),
        ("bytes=4999990-", 4_999_990, size - 1),
        ("bytes=-7", size - 7, size - 1),
        ("bytes=100-99999999", 100, size - 1),
    ):
        part = hub.http.get(path, headers={"range": text})
        assert part.status_code == 206
        assert part.headers["content-range"] == f"bytes {first}-{last}/{size}"
        assert part.content == data[first : last + 1]
    beyond = hub.http.get(path, headers={"range": f"bytes={size}-"})
    assert (beyond.status_code, code_of(beyond)) == (416, "RANGE_INVALID")
    assert beyond.headers["content-range"] == f"bytes */{size}"
    for ignored in ("bytes=1-2,4-5", "lines=1-2", "bytes=5-2"):
        assert hub.http.get(path, headers={"range": ignored}).status_code == 200
    head = hub.http.head(path)
    assert head.headers["accept-ranges"] == "bytes"
    assert head.headers["etag"] == f'"{digest}"'
    assert hub.http.get(path, headers={"if-none-match": f'"{digest}"'}).status_code == 304
    stale = hub.http.get(path, headers={"range": "bytes=0-9", "if-range": '"another"'})
    assert (stale.status_code, stale.content) == (200, data)


def test_tags_are_paged_in_order(hub: Hub, name: str) -> None:
    for tag in ("c", "a", "e", "b", "d"):
        push(hub, name, tag, b"x")
    path = f"/v2/{name}/tags/list"
    assert hub.http.get(path).json() == {"name": name, "tags": ["a", "b", "c", "d", "e"]}
    found: list[str] = []
    url = f"{path}?n=2"
    while url:
        page = hub.http.get(url)
        found += page.json()["tags"]
        url = page.links["next"]["url"] if "next" in page.links else ""
    assert found == ["a", "b", "c", "d", "e"]
    assert hub.http.get(path, params={"n": 0}).json()["tags"] == []
    assert hub.http.get(path, params={"last": "c"}).json()["tags"] == ["d", "e"]


def test_catalog_is_paged_and_shows_other_registries_under_their_host(start_hub: Start) -> None:
    hub = start_hub()
    for repository in ("smollm2", "team/b", "quay.io/org/c", "ai/a"):
        push(hub, repository, "latest", b"x")
    assert hub.http.get("/v2/_catalog").json()["repositories"] == ["ai/a", "ai/smollm2", "quay.io/org/c", "team/b"]
    page = hub.http.get("/v2/_catalog", params={"n": 3})
    assert page.json()["repositories"] == ["ai/a", "ai/smollm2", "quay.io/org/c"]
    assert hub.http.get(page.links["next"]["url"]).json()["repositories"] == ["team/b"]
    # What was pushed is an artifact of the store, under the name that the command line uses.
    assert str(hub.store.resolve("smollm2").digest) == digest_of(manifest(b"x"))
    assert hub.store.resolve("quay.io/org/c").digest == digest_of(manifest(b"x"))
    assert (
        hub.http.get("/v2/smollm2/manifests/latest").content == hub.http.get("/v2/ai/smollm2/manifests/latest").content
    )


def test_referrers_are_found_and_filtered(hub: Hub, name: str) -> None:
    digest = push(hub, name, "model", b"weights")
    subject = {"mediaType": MANIFEST, "digest": digest, "size": len(manifest(b"weights"))}
    path = f"/v2/{name}/referrers/{digest}"
    empty = hub.http.get(path)
    assert empty.headers["content-type"] == INDEX
    assert empty.json()["manifests"] == []
    reports = []
    for kind in ("application/vnd.example.report", "application/vnd.example.signature"):
        data = manifest(b"weights", artifactType=kind, subject=subject, annotations={"kind": kind})
        put = hub.http.put(f"/v2/{name}/manifests/{digest_of(data)}", content=data, headers={"content-type": MANIFEST})
        assert put.status_code == 201
        assert put.headers["oci-subject"] == digest
        reports.append({**described(data, MANIFEST), "artifactType": kind, "annotations": {"kind": kind}})
    found = hub.http.get(path)
    assert sorted(found.json()["manifests"], key=str) == sorted(reports, key=str)
    only = hub.http.get(path, params={"artifactType": "application/vnd.example.report"})
    assert only.json()["manifests"] == reports[:1]
    assert only.headers["oci-filters-applied"] == "artifactType"
    # A subject may come after what is attached to it.
    early = {"mediaType": MANIFEST, "digest": digest_of(b"later"), "size": 5}
    data = manifest(b"weights", subject=early)
    put = hub.http.put(f"/v2/{name}/manifests/early", content=data, headers={"content-type": MANIFEST})
    assert put.headers["oci-subject"] == early["digest"]
    assert len(hub.http.get(f"/v2/{name}/referrers/{early['digest']}").json()["manifests"]) == 1


def test_index_of_variants(hub: Hub, name: str) -> None:
    push(hub, name, "q4", b"four")
    children = [{**described(manifest(b"four"), MANIFEST), "annotations": {"quantization": "Q4"}}]
    data = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": children}).encode()
    put = hub.http.put(f"/v2/{name}/manifests/all", content=data, headers={"content-type": INDEX})
    assert put.status_code == 201
    assert hub.http.get(f"/v2/{name}/manifests/all").headers["content-type"] == INDEX
    hub.http.delete(f"/v2/{name}/manifests/q4")
    assert hub.http.get(f"/v2/{name}/manifests/{children[0]['digest']}").status_code == 200


def test_deletes(hub: Hub, name: str) -> None:
    content = os.urandom(100)
    digest = push(hub, name, "one", content)
    push(hub, name, "two", content)
    assert hub.http.delete(f"/v2/{name}/manifests/one").status_code == 202
    assert hub.http.get(f"/v2/{name}/manifests/one").status_code == 404
    assert hub.http.get(f"/v2/{name}/manifests/two").status_code == 200
    needed = hub.http.delete(f"/v2/{name}/blobs/{digest_of(content)}")
    assert (needed.status_code, code_of(needed)) == (405, "UNSUPPORTED")
    push(hub, f"{name}-other", "kept", content)
    assert hub.http.delete(f"/v2/{name}/manifests/{digest}").status_code == 202
    assert hub.http.get(f"/v2/{name}/tags/list").status_code == 404
    assert hub.http.get(f"/v2/{name}-other/manifests/kept").status_code == 200
    assert hub.http.delete(f"/v2/{name}/manifests/gone").status_code == 404
    loose = os.urandom(100)
    hub.push_blob(name, loose, digest_of(loose))
    assert hub.http.delete(f"/v2/{name}/blobs/{digest_of(loose)}").status_code == 202
    assert hub.http.get(f"/v2/{name}/blobs/{digest_of(loose)}").status_code == 404


def test_pinned_manifest_is_not_deleted(hub: Hub, name: str) -> None:
    digest = push(hub, name, "kept", os.urandom(10))
    hub.store.pin(digest)
    refused = hub.http.delete(f"/v2/{name}/manifests/{digest}")
    assert (refused.status_code, code_of(refused)) == (409, "DENIED")


def test_methods_that_make_no_sense_say_which_do(hub: Hub, name: str) -> None:
    found = hub.http.post(f"/v2/{name}/manifests/x")
    assert (found.status_code, code_of(found)) == (405, "UNSUPPORTED")
    assert "PUT" in found.headers["allow"]


def test_collection_in_the_middle_of_a_push_takes_nothing(start_hub: Start) -> None:
    hub = start_hub()
    content = os.urandom(1000)
    hub.push_blob("t/busy", content, digest_of(content))
    hub.push_blob("t/busy", EMPTY, digest_of(EMPTY))
    hub.store.gc(grace=0)
    put = hub.http.put("/v2/t/busy/manifests/v1", content=manifest(content), headers={"content-type": MANIFEST})
    assert put.status_code == 201


def test_full_store_refuses_before_the_body_and_keeps_nothing(start_hub: Start) -> None:
    hub = start_hub(quota=1_000_000)
    small, large = os.urandom(600_000), os.urandom(600_000)
    assert hub.push_blob("t/full", small, digest_of(small)).status_code == 201
    refused = hub.push_blob("t/full", large, digest_of(large))
    assert (refused.status_code, code_of(refused)) == (507, "DENIED")
    assert "quota" in refused.json()["errors"][0]["message"]
    place = hub.http.post("/v2/t/full/blobs/uploads/").headers["location"]
    streamed = hub.http.patch(place, content=iter([large]))
    assert streamed.status_code == 507
    assert not list(hub.store.incoming.glob("upload-*"))


def test_keys(guarded: Hub) -> None:
    anonymous = guarded.http.get("/v2/")
    assert (anonymous.status_code, code_of(anonymous)) == (401, "UNAUTHORIZED")
    assert anonymous.headers["www-authenticate"] == 'Basic realm="dockyard"'
    assert guarded.http.get("/v2/", auth=("any", "wrong")).status_code == 401
    assert guarded.http.get("/v2/", headers={"authorization": "Basic ???"}).status_code == 401
    assert guarded.http.get("/v2/", headers={"authorization": "Bearer pull-key"}).status_code == 200
    assert guarded.http.get("/v2/", auth=("any", "pull-key")).status_code == 200
    denied = guarded.http.post("/v2/t/x/blobs/uploads/", auth=("any", "pull-key"))
    assert (denied.status_code, code_of(denied)) == (403, "DENIED")
    assert guarded.http.post("/v2/t/x/blobs/uploads/", auth=("any", "push-key")).status_code == 202


def test_a_key_for_some_models_reaches_no_others(start_hub: Start) -> None:
    hub = start_hub(keys="push-key:manage")
    hub.http.auth = ("any", "push-key")
    secret_content, open_content = os.urandom(50), os.urandom(50)
    push(hub, "team/secret", "v1", secret_content)
    push(hub, "team/open", "v1", open_content)
    command = [sys.executable, "-m", "dockyard", "key", "create", "guest", "--model", "team/open", "--json"]
    environ = {**os.environ, "DOCKYARD_HOME": str(hub.home), "DOCKYARD_API_KEYS": "push-key:manage"}
    made = json.loads(subprocess.run(command, env=environ, check=True, capture_output=True, timeout=60).stdout)
    hub.http.auth = ("any", made["secret"])
    assert hub.http.get("/v2/team/open/manifests/v1").status_code == 200
    assert hub.http.get(f"/v2/team/open/blobs/{digest_of(open_content)}").content == open_content
    assert hub.http.get("/v2/team/secret/manifests/v1").status_code == 403
    assert hub.http.get("/v2/team/secret/tags/list").status_code == 403
    assert hub.http.get("/v2/_catalog").status_code == 403
    # Content is shared between repositories; its digest opens it only where the key may go.
    for path in ("blobs", "manifests"):
        digest = digest_of(secret_content if path == "blobs" else manifest(secret_content))
        assert hub.http.get(f"/v2/team/open/{path}/{digest}").status_code == 404


def test_abandoned_uploads_are_removed(start_hub: Start) -> None:
    hub = start_hub()
    old, recent = hub.store.incoming / f"upload-{'a' * 32}", hub.store.incoming / f"upload-{'b' * 32}"
    for path in (old, recent):
        path.write_bytes(b"half")
    two_days_ago = time.time() - 2 * 86400
    os.utime(old, (two_days_ago, two_days_ago))
    hub.http.post("/v2/t/sweep/blobs/uploads/")
    assert not old.exists()
    assert hub.http.get(f"/v2/t/sweep/blobs/uploads/{'b' * 32}").headers["range"] == "0-3"
