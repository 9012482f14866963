"""A repository in a bucket of S3, or of anything that speaks its protocol.

What never changes may be cached for a year, ``timestamp.json`` for a minute. No file is made or replaced without a
condition (``If-None-Match``, ``If-Match``), so that publishers who do not know of each other cannot undo what the other
did.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from haversack.base.errors import EnvironmentFault, MissingExtra, Refused, UsageError
from haversack.deliver.storage import PATH, Found, checked

LASTING = "public, max-age=31536000, immutable"
FLEETING = "public, max-age=60"
_URL = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(/(?P<prefix>[A-Za-z0-9_./-]*))?")
_ABSENT = frozenset({"404", "NoSuchKey", "NotFound"})
_MET_NOT = frozenset({"412", "PreconditionFailed", "ConditionalRequestConflict"})


@dataclass(frozen=True)
class Bucket:
    """A repository in a bucket.

    Attributes:
        client: of boto3; endpoint, region and credentials are found as boto3 does (AWS_ENDPOINT_URL, AWS_PROFILE …).
        bucket: its name.
        prefix: of all keys, empty or ending with ``/``.
    """

    client: Any
    bucket: str
    prefix: str = ""

    @property
    def name(self) -> str:
        """Its address."""
        return f"s3://{self.bucket}/{self.prefix}"

    def read(self, path: str, limit: int) -> Found | None:
        """Return a file, or None where there is none; see ``deliver.storage.Storage``."""
        found = self._begun(path, limit + 1)
        if found is not None and len(found.data) > limit:
            raise Refused(f"it has more than {limit} bytes, which are allowed", where=self.name + path)
        return found

    def _begun(self, path: str, most: int) -> Found | None:
        """Return so many bytes of a file at most."""
        with self._told(path, "read the repository") as refused:
            answer = self.client.get_object(Bucket=self.bucket, Key=self._key(path))
            with answer["Body"] as body:
                data = bytes(body.read(most))
        if refused & _ABSENT:
            return None
        return Found(data, str(answer["ETag"]))

    def create(self, path: str, data: bytes) -> bool:
        """Make a file that is never changed; see ``deliver.storage.Storage``."""
        if self._put(path, data, LASTING, {"IfNoneMatch": "*"}):
            return True
        found = self._begun(path, len(data) + 1)
        return found is not None and found.data == data

    def swap(self, path: str, data: bytes, seen: str) -> bool:
        """Replace the file that changes; see ``deliver.storage.Storage``."""
        return self._put(path, data, FLEETING, {"IfMatch": seen} if seen else {"IfNoneMatch": "*"})

    def _put(self, path: str, data: bytes, cache: str, condition: Mapping[str, str]) -> bool:
        kind = "application/json" if path.endswith(".json") else "application/octet-stream"
        with self._told(path, "write to the repository") as refused:
            self.client.put_object(
                Bucket=self.bucket, Key=self._key(path), Body=data, CacheControl=cache, ContentType=kind, **condition
            )
        return not refused & (_MET_NOT | _ABSENT)

    def _key(self, path: str) -> str:
        return self.prefix + checked(path)

    @contextmanager
    def _told(self, path: str, doing: str) -> Iterator[set[str]]:
        """Yield a set that gets the server's code where the file is absent or a condition not met.

        Raises:
            EnvironmentFault: any other error, of the server or on the way to it.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        refused: set[str] = set()
        try:
            yield refused
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code not in _ABSENT | _MET_NOT:
                raise self._fault(path, doing, str(error)) from error
            refused.add(code)
        except BotoCoreError as error:
            raise self._fault(path, doing, str(error)) from error

    def _fault(self, path: str, doing: str, cause: str) -> EnvironmentFault:
        step = "look at AWS_PROFILE, AWS_REGION and AWS_ENDPOINT_URL, then repeat the same command"
        return EnvironmentFault(cause, where=self.name + path, tried=doing, next_step=step)


def bucket(url: str) -> Bucket:
    """Return the storage of ``s3://BUCKET/PREFIX``.

    Raises:
        UsageError: the address is none.
        MissingExtra: the package boto3 is not installed.
        EnvironmentFault: boto3 finds no region or a profile that does not exist.
    """
    match = _URL.fullmatch(url)
    prefix = (match["prefix"] or "").strip("/") if match else ""
    if match is None or (prefix and not PATH.fullmatch(prefix)):
        raise UsageError(f"{url[:80]!r} is no address of the form s3://BUCKET/PREFIX", where="--repository")
    try:
        import boto3
        from botocore.exceptions import BotoCoreError
    except ImportError as error:
        raise MissingExtra("boto3", "s3", purpose="a repository on s3://") from error
    try:
        client = boto3.client("s3")
    except BotoCoreError as error:
        step = "look at AWS_PROFILE and AWS_REGION, then repeat the same command"
        raise EnvironmentFault(str(error), where=url, next_step=step) from error
    return Bucket(client, match["bucket"], f"{prefix}/" if prefix else "")
