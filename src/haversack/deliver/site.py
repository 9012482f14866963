"""A repository as a device reaches it: a URL, and below it files of which nothing is believed yet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

from haversack.base.errors import EnvironmentFault, Refused, UsageError
from haversack.deliver.home import GOES_ON
from haversack.deliver.patience import Bounds, Patience
from haversack.deliver.transport import Broken, Gone, opened
from haversack.deliver.trusted import Missing

METADATA = Bounds(deadline_seconds=120.0, rate_seconds=20.0, least_rate=64.0)
"""What one file of metadata may cost."""


@dataclass(frozen=True)
class Site:
    """Where a repository lies.

    Attributes:
        root: its URL.
        bounds: of each small file.
    """

    root: str
    bounds: Bounds = field(default=METADATA)

    @classmethod
    def of(cls, repository: str | Path, bounds: Bounds = METADATA) -> Site:
        """Return the site of a URL or of a folder on this machine.

        Raises:
            UsageError: a device does not read such a URL.
        """
        text = str(repository)
        step = "name the address at which the bucket or the folder is served"
        if not text.strip():  # an empty path would be the folder where the command is typed
            raise UsageError("it names nothing", where="--repository", next_step=step)
        try:
            if "://" not in text:
                return cls(Path(text).expanduser().resolve().as_uri(), bounds)
            readable = urlsplit(text).scheme in {"http", "https", "file"} and not urlsplit(text).query
        except (ValueError, RuntimeError) as error:  # half an IPv6 address, ~nobody
            cause = f"{text[:100]!r} is no URL and no folder: {error}"
            raise UsageError(cause, where="--repository", next_step=step) from error
        if not readable:
            raise UsageError(
                f"a device reads http, https and file, not {text[:100]!r}", where="--repository", next_step=step
            )
        return cls(text.rstrip("/"), bounds)

    def url(self, path: str) -> str:
        """Return where a path below the root is fetched."""
        return f"{self.root}/{quote(path)}"

    def fetch(self, path: str) -> Iterator[bytes]:
        """Yield the bytes of a small file, as many as come; a connection that breaks before the first is tried again.

        Raises:
            Missing: there is no such file.
            EnvironmentFault: the network failed, or it took too long.
            Refused: as ``transport.opened``.
        """
        patience = Patience(self.bounds, self.url(path), again_goes="metadata are small, and begin anew")
        for attempt in range(1, self.bounds.attempts + 1):
            came = 0
            try:
                with opened(self.url(path), patience) as answer:
                    for piece in answer.chunks:
                        came += len(piece)
                        yield piece
                    if answer.total is not None and came < answer.total:
                        raise Broken(f"it broke off after {came} of {answer.total} bytes", where=self.url(path))
            except Gone as error:
                raise Missing(error.cause, where=error.where) from error
            except Broken as error:
                if came or attempt == self.bounds.attempts:
                    step = f"{GOES_ON}look at the network and at --repository, and repeat later"
                    raise EnvironmentFault(error.cause, where=error.where, next_step=step) from error
                patience.pause(attempt)
            else:
                return

    def small(self, path: str, limit: int) -> bytes:
        """Return the bytes of a small file.

        Raises:
            Refused: it has more than ``limit`` bytes.
            Missing, EnvironmentFault: as ``fetch``.
        """
        data = b""
        for piece in self.fetch(path):
            data += piece
            if len(data) > limit:
                step = f"{GOES_ON}ask the publisher, and look at --repository"
                raise Refused(f"more than {limit} bytes came", where=self.url(path), next_step=step)
        return data
