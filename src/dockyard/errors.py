"""Every failure that Dockyard reports on purpose.

    DockyardError                      500 internal_error
    ├── InvalidRequest                 400 invalid_request        what a caller sent is wrong; ``param`` says where
    │   ├── InvalidReference           400 invalid_reference
    │   ├── UnsupportedParameter       400 unsupported_parameter
    │   ├── ContextOverflow            400 context_length_exceeded
    │   └── PayloadTooLarge            413 payload_too_large
    ├── Unauthorized                   401 invalid_api_key
    ├── Forbidden                      403 forbidden
    │   ├── Blocked                    403 content_blocked        a guard refused it
    │   └── Untrusted                  403 untrusted_artifact     it does not satisfy the policy for artifacts
    ├── NotFound                       404 not_found
    │   └── ModelNotFound              404 model_not_found
    ├── Conflict                       409 conflict
    ├── RateLimited                    429 rate_limited           ``retry_after`` in seconds
    ├── Overloaded                     503 overloaded             ``retry_after`` in seconds
    │   ├── InsufficientMemory         503 insufficient_memory    the model does not fit this machine now
    │   └── Preempted                  503 preempted              batch work made way for interactive work: ask again
    ├── ArtifactError                  422 invalid_artifact
    │   ├── DigestMismatch             422 digest_mismatch
    │   ├── TruncatedContent           422 truncated_content
    │   ├── UnsafeContent              422 unsafe_content         pickles, paths that escape, oversized manifests
    │   ├── ParityMismatch             422 parity_mismatch        a converted model does not answer as its original does
    │   └── UnsupportedFormat          422 unsupported_format
    ├── StoreFull                      507 store_full
    ├── SourceError                    502 source_error           a registry, hub or index answered with a failure
    │   └── SourceUnreachable          502 source_unreachable
    ├── ServerUnreachable              502 server_unreachable     no Dockyard answers at the address given
    ├── EngineError                    500 engine_error
    │   ├── EngineUnavailable          501 engine_unavailable     a missing extra; ``hint`` is the install line
    │   ├── LoadFailed                 500 load_failed
    │   ├── UpstreamError              502 upstream_error         another server that answers for us failed
    │   └── WorkerCrashed              503 worker_crashed
    ├── Cancelled                      499 cancelled
    └── SettingsError                  500 invalid_settings

``status`` is the HTTP status a dialect answers with, ``code`` the stable word that programs match on, ``hint`` what to
do about it. Dialects in ``api/`` put these into their own error shape; the command line prints message and hint.
"""

from __future__ import annotations

from typing import ClassVar


class DockyardError(Exception):
    """What went wrong, in one sentence that names the thing it happened to.

    ``hint`` tells the reader what to do; ``param`` names the field, flag or path that is wrong;
    ``retry_after`` (seconds) is set where waiting helps.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.param = param
        self.retry_after = retry_after


class InvalidRequest(DockyardError):
    status = 400
    code = "invalid_request"


class InvalidReference(InvalidRequest):
    code = "invalid_reference"


class UnsupportedParameter(InvalidRequest):
    code = "unsupported_parameter"


class ContextOverflow(InvalidRequest):
    code = "context_length_exceeded"


class PayloadTooLarge(InvalidRequest):
    status = 413
    code = "payload_too_large"


class Unauthorized(DockyardError):
    status = 401
    code = "invalid_api_key"


class Forbidden(DockyardError):
    status = 403
    code = "forbidden"


class Blocked(Forbidden):
    code = "content_blocked"


class Untrusted(Forbidden):
    code = "untrusted_artifact"


class NotFound(DockyardError):
    status = 404
    code = "not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"


class Conflict(DockyardError):
    status = 409
    code = "conflict"


class RateLimited(DockyardError):
    status = 429
    code = "rate_limited"


class Overloaded(DockyardError):
    status = 503
    code = "overloaded"


class InsufficientMemory(Overloaded):
    code = "insufficient_memory"


class Preempted(Overloaded):
    code = "preempted"


class ArtifactError(DockyardError):
    status = 422
    code = "invalid_artifact"


class DigestMismatch(ArtifactError):
    code = "digest_mismatch"


class TruncatedContent(ArtifactError):
    code = "truncated_content"


class UnsafeContent(ArtifactError):
    code = "unsafe_content"


class ParityMismatch(ArtifactError):
    code = "parity_mismatch"


class UnsupportedFormat(ArtifactError):
    code = "unsupported_format"


class StoreFull(DockyardError):
    status = 507
    code = "store_full"


class SourceError(DockyardError):
    status = 502
    code = "source_error"


class SourceUnreachable(SourceError):
    code = "source_unreachable"


class ServerUnreachable(DockyardError):
    status = 502
    code = "server_unreachable"


class EngineError(DockyardError):
    code = "engine_error"


class EngineUnavailable(EngineError):
    status = 501
    code = "engine_unavailable"


class LoadFailed(EngineError):
    code = "load_failed"


class UpstreamError(EngineError):
    status = 502
    code = "upstream_error"


class WorkerCrashed(EngineError):
    status = 503
    code = "worker_crashed"


class Cancelled(DockyardError):
    status = 499
    code = "cancelled"


class SettingsError(DockyardError):
    code = "invalid_settings"


def by_code(code: str) -> type[DockyardError]:
    """The class whose ``code`` this is, so that a failure survives a trip between processes; the root if unknown."""
    found = [DockyardError]
    while found:
        kind = found.pop()
        if kind.code == code:
            return kind
        found.extend(kind.__subclasses__())
    return DockyardError
