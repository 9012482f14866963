"""A small repository whose files may be other bytes, signed anew by those whose keys it has: all of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import seeds  # noqa: F401 - it says where the tests' own modules are
from securesystemslib.formats import encode_canonical
from sites import Memory, Site, later
from tuf.api.metadata import Metadata, MetaFile, TargetFile

from haversack.deliver.trusted import Missing, Trusted
from haversack.tools.trust import keys


class Forger:
    """The repository in memory.

    Args:
        folder: where it is made.
    """

    def __init__(self, folder: Path) -> None:
        self.site = Site.create(folder)
        self.site.publish("1.0.0")
        self.keys = keys.read(self.site.keys)
        paths = (path for path in self.site.root.rglob("*") if path.is_file())
        found = {path.relative_to(self.site.root).as_posix(): path.read_bytes() for path in paths}
        self.plain = found
        versions = sorted(found, key=lambda path: path.rpartition("/")[2].partition(".")[0].zfill(9))
        self.places = {
            path.rpartition("/")[2].split(".")[-2]: path for path in versions if path.startswith("metadata/")
        }
        self.places["release"] = next(path for path in found if path.startswith("targets/"))
        self.places["root"] = "metadata/2.root.json"
        self.roles = sorted(self.places)

    def content(self, role: str) -> bytes:
        """Return what a role signs; of root what its second version would be."""
        if role == "release":
            return self.plain[self.places[role]]
        data = (self.site.keys / "1.root.json").read_bytes() if role == "root" else self.plain[self.places[role]]
        text = json.dumps(json.loads(data)["signed"])
        return (text.replace('"version": 1', '"version": 2') if role == "root" else text).encode()

    def signed(self, role: str, content: bytes) -> bytes:
        """Return content with the signatures of a role's keys, if it is JSON that can be signed at all."""
        if role == "release":
            return content
        try:
            canonical = encode_canonical(json.loads(content)).encode()
        except Exception:
            return content
        names = ("root-1", "root-2") if role == "root" else (role,)
        made = [one.signer.sign(canonical) for name in names for one in self.keys.of(name)]
        signatures = [{"keyid": one.keyid, "sig": one.signature} for one in made]
        return json.dumps({"signatures": signatures}).encode()[:-1] + b',"signed":' + content + b"}"

    def files(self, role: str, data: bytes, *, follow: bool) -> dict[str, bytes]:
        """Return all files, one of them other bytes; where the others follow, they name these bytes."""
        files = {**self.plain, self.places[role]: data}
        if follow and role == "release":
            file = TargetFile.from_data("digits/1.0.0.json", data, ["sha256"])
            file.unrecognized_fields["custom"] = {"sequence": 1}
            line = Metadata.from_bytes(files[self.places["digits"]])
            line.signed.targets = {file.path: file}
            files[f"targets/{file.get_prefixed_paths()[0]}"] = data
            files[self.places["digits"]] = self._resigned(line, "digits")
            role = "digits"
        if follow and role in {"digits", "targets"}:
            self._name(files, "snapshot", role)
            role = "snapshot"
        if follow and role == "snapshot":
            self._name(files, "timestamp", role)
        return files

    def _name(self, files: dict[str, bytes], above: str, role: str) -> None:
        metadata = Metadata.from_bytes(files[self.places[above]])
        meta = metadata.signed.snapshot_meta if above == "timestamp" else metadata.signed.meta[f"{role}.json"]
        told = MetaFile.from_data(meta.version, files[self.places[role]], ["sha256"])
        meta.hashes, meta.length = told.hashes, told.length
        files[self.places[above]] = self._resigned(metadata, above)

    def _resigned(self, metadata: Metadata, role: str) -> bytes:
        metadata.sign(self.keys.of(role)[0].signer)
        return metadata.to_bytes()

    def device(self, files: dict[str, bytes], cache: Path) -> Trusted:
        """Return a device that reads these files."""

        def fetch(path: str) -> Iterator[bytes]:
            if path not in files:
                raise Missing("there is no such file", where=path)
            yield files[path]

        return later(self.site.device(memory=Memory()), fetch=fetch, cache=cache)
