"""The OCI distribution protocol from the client's side, and an in-memory registry for tests.

client       one registry: manifests, tags, catalogue, deletes
credentials  Docker's configuration and its helpers
auth         basic and bearer tokens
transport    HTTP with retries, safe redirects and a stop button
headers      parsers of the headers that matter; pure
ranges       which blocks of a blob are here; pure but for its small file
download     many blobs over a few connections, resumable, hashed while they stream
upload       mount, skip, resume, chunk
referrers    what points at a manifest, by API or by tag
memory       a real registry on a thread, with faults on demand
"""
