"""Objects of an S3 bucket, by boto3: ``s3://bucket/prefix``. Credentials, region and endpoint are those of the
environment (``AWS_…``), as every S3 tool reads them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from dockyard.errors import EngineUnavailable, NotFound, PayloadTooLarge, SourceUnreachable
from dockyard.knowledge.model import Problem, Sighted
from dockyard.knowledge.sources import Job, wanted


class S3Source:
    """What begins with ``s3://``."""

    def claims(self, text: str) -> str | None:
        return text if text.startswith("s3://") else None

    @contextlib.contextmanager
    def open(self, job: Job) -> Iterator[Bucket]:
        try:
            import boto3
            from botocore.config import Config
        except ModuleNotFoundError as error:
            raise EngineUnavailable(
                "S3 needs boto3, which is not installed", hint="pip install 'dockyard[s3]'"
            ) from error
        bucket, _, prefix = job.source.place.removeprefix("s3://").partition("/")
        made = boto3.client("s3", config=Config(connect_timeout=10, read_timeout=60, retries={"max_attempts": 3}))
        try:
            yield Bucket(job, made, bucket, prefix)
        finally:
            made.close()


class Bucket:
    """A bucket below a prefix."""

    def __init__(self, job: Job, client: Any, bucket: str, prefix: str) -> None:
        self._job = job
        self._client = client
        self._bucket = bucket
        self._prefix = prefix

    def sight(self) -> Iterator[Sighted | Problem]:
        from botocore.exceptions import BotoCoreError, ClientError

        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._prefix)
        try:
            for page in pages:
                for one in page.get("Contents") or ():
                    name = one["Key"].removeprefix(self._prefix).lstrip("/") or one["Key"]
                    if one["Key"].endswith("/") or not wanted(name, self._job.source):
                        continue
                    yield Sighted(
                        path=name,
                        fingerprint=f"{one.get('ETag')}-{one['Size']}",
                        size=int(one["Size"]),
                        modified=one["LastModified"].timestamp(),
                        key=one["Key"],
                    )
        except (BotoCoreError, ClientError) as error:
            raise SourceUnreachable(f"{self._job.source.place} can't be listed: {error}") from error

    def read(self, sighted: Sighted) -> bytes:
        from botocore.exceptions import BotoCoreError, ClientError

        if sighted.size > self._job.most:
            raise PayloadTooLarge(f"it has {sighted.size} bytes, and {self._job.most} is the most")
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=sighted.key)
            return bytes(answer["Body"].read(self._job.most + 1))
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in ("NoSuchKey", "404"):
                raise NotFound("it went while the bucket was read") from error
            raise SourceUnreachable(f"it can't be read: {error}") from error
        except BotoCoreError as error:
            raise SourceUnreachable(f"it can't be read: {error}") from error


PLUGIN = S3Source()
