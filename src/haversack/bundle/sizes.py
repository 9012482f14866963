"""What a file of a bundle weighs on its way to a device."""

from __future__ import annotations

from haversack.base.bundle import BundleFile
from haversack.tools.codec import download
from haversack.tools.formats.index import hints
from haversack.tools.trust.bundle import Bundle


def travelling(bundle: Bundle, file: BundleFile) -> int:
    """Return the bytes of a file in its download form (docs/spec/download.md), without a delta; 0 of what is for tools.

    A model's were measured when it was made. What the download form would make larger travels as it is.

    Raises:
        Refused: it is not the file that the manifest names.
        MissingExtra: the package zstandard is not installed.
    """
    if file.role == "encodings":
        return 0
    artifact = bundle.artifacts.get(file.target)
    for told in artifact.files if artifact is not None else ():
        if told.path == file.name:
            return min(told.download_bytes, file.bytes)
    content = bundle.read(file)
    return min(len(download.pack(content, hints(content))), file.bytes)
