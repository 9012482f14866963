"""What a repository offers this device: releases that it may believe, where their blobs lie, and their keys."""

from __future__ import annotations

from dataclasses import dataclass

from haversack.base.release import Release
from haversack.deliver.floor import Floor
from haversack.deliver.home import Home
from haversack.deliver.release_key import release_key
from haversack.deliver.site import Site
from haversack.deliver.trusted import Trusted


@dataclass(frozen=True)
class Offer:
    """A repository as a home sees it.

    Attributes:
        site: where it lies.
        trusted: what of it is believed.
        home: of the device.
    """

    site: Site
    trusted: Trusted
    home: Home

    @classmethod
    def of(cls, site: Site, root: bytes, home: Home) -> Offer:
        """Return what a site offers, when trust begins with ``root`` and with what the home remembers."""
        return cls(site, Trusted(home.trust, site.fetch, root, Floor(home.floor)), home)

    def release(self, line: str) -> Release:
        """Return the newest release of a line; see ``Trusted.release``.

        Raises:
            Refused, Expired, EnvironmentFault, UsageError: as there.
        """
        return self.trusted.release(line)

    def url(self, path: str) -> str:
        """Return where a path below the root is fetched."""
        return self.site.url(path)

    def key(self, release: Release) -> bytes | None:
        """Return the key of a release, 32 bytes; see ``release_key``.

        Raises:
            UsageError, EnvironmentFault, Refused: as there.
        """
        return release_key(release, self.home.device_key, self.home.release_keys, self.site.small)
