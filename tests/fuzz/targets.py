"""What is fuzzed: for each reader of strangers' bytes its seeds, and what it may do with any bytes.

A reader returns what is within bounds, or raises an error of our own that says what is wrong and where. Where a digest,
a compressor or a signature would stop nearly all that is drawn, bytes are put in behind it: the first byte says where.
"""

from __future__ import annotations

import bz2
import hashlib
import shutil
import struct
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import seeds

from haversack.base.errors import EXIT_REFUSED, HaversackError, Refused

LIMIT = 1 << 20


@dataclass(frozen=True)
class Target:
    """One thing to fuzz.

    Attributes:
        seeds: good bytes, which are read without an error.
        read: reads bytes, and looks at what it finds there.
        kinds: errors that may be told beside ``Refused``.
    """

    seeds: Sequence[bytes]
    read: Callable[[bytes], object]
    kinds: tuple[type[HaversackError], ...] = ()

    def check(self, data: bytes) -> bool:
        """Read bytes and say whether they were taken; what is refused has a cause, a place and its exit code."""
        try:
            self.read(data)
            return True
        except (Refused, *self.kinds) as error:
            assert error.cause, "a refusal without a cause"
            assert error.where or error.faults, f"a refusal without a place: {error.cause}"
            assert (error.exit_code == EXIT_REFUSED) == isinstance(error, Refused)
            str(error)
            return False


def scratch() -> Path:
    """Return a folder for files that are written anew for each input; ``fuzz.py`` says where, and removes it."""
    return Path(tempfile.mkdtemp(prefix="haversack-fuzz-"))


def records() -> Target:
    """Canonical records: a manifest, a release, an artifact, where a bundle comes from."""
    from haversack.base.bundle import Manifest
    from haversack.base.candidate import Artifact
    from haversack.base.provenance import Provenance
    from haversack.base.release import Blob, Encryption, Release, ReleaseFile
    from haversack.tools.trust import canonical

    kinds = (Manifest, Release, Artifact, Provenance)
    small = seeds.by_path("tools/trust/conftest")
    files = small.plain()
    blobs = (Blob("a" * 64, 9, "download"), Blob("b" * 64, 3, "hvd1", "c" * 64))
    told = ReleaseFile("manifest.json", "manifest", 5, "d" * 64, blobs)
    release = Release(1, "digits", "1.2.3-rc.1", 7, (told,), Encryption("aes-256-gcm-stream", "e" * 64))
    good = [canonical.dumps(small.manifest(files)), canonical.dumps(release), files["litert.json"]]
    good.append(files["provenance.json"])

    def read(data: bytes) -> None:
        kind = kinds[data[0] % len(kinds)] if data else Manifest
        formats = None if kind is Artifact else (1,)
        found = canonical.loads(data[1:], kind, where="a record", limit=LIMIT, formats=formats)
        assert canonical.dumps(found) == data[1:]

    return Target([bytes([number]) + one for number, one in enumerate(good)], read)


def bundle() -> Target:
    """A bundle of which one file, or the manifest, is other bytes; the manifest names them rightly."""
    from haversack.base.errors import UsageError
    from haversack.tools.trust.bundle import open_bundle

    small = seeds.by_path("tools/trust/conftest")
    whole = small.plain()
    names = ["manifest.json", *sorted(whole)]
    folder = scratch()

    def put(files: Mapping[str, bytes], manifest: bytes) -> None:
        for name, data in {**files, "manifest.json": manifest}.items():
            (folder / name).write_bytes(data)

    def read(data: bytes) -> None:
        name = names[data[0] % len(names)] if data else "manifest.json"
        files = {**whole, name: data[1:]} if name in whole else dict(whole)
        for target in ("litert", "onnxruntime"):
            if name.startswith(target) and name != f"{target}.json":
                files[f"{target}.json"] = small.dumps(small.artifact(target, files))
        told = small.dumps(small.manifest(files)) if name in whole else data[1:]
        put(files, told)
        found = open_bundle(folder)
        assert found.manifest.name
        open_bundle(folder, "litert")

    plain = {**whole, "manifest.json": small.dumps(small.manifest(whole))}
    return Target([bytes([number]) + plain[name] for number, name in enumerate(names)], read, (UsageError,))


def golden() -> Target:
    """Golden vectors."""
    from haversack.base.errors import VerificationError
    from haversack.tools.data import golden_file

    def read(data: bytes) -> None:
        for vector in golden_file.from_bytes(data, where="golden.npz"):
            assert sum(array.nbytes for array in vector.inputs.values()) <= len(data)

    return Target([seeds.golden()], read, (VerificationError,))


def sections(data: bytes, count: int) -> tuple[list[bytes], bytes]:
    """Return so many pieces, each behind its length in two bytes, and the rest; short ones where data end."""
    found = []
    for _ in range(count):
        size = int.from_bytes(data[:2], "little")
        found.append(data[2 : 2 + size])
        data = data[2 + size :]
    return found, data


def sectioned(*pieces: bytes) -> bytes:
    return b"".join(len(one).to_bytes(2, "little") + one for one in pieces)


def unframed(frame: bytes) -> bytes:
    """Return the content of a frame of Zstandard; none of no frame."""
    import zstandard

    return zstandard.ZstdDecompressor().decompress(frame) if frame else b""


def download() -> Target:
    """The download form: as it is (0), or with its plan and packed bytes put into frames first (1)."""
    from haversack.tools.codec import body, zstd
    from haversack.tools.codec import download as form

    (content, tensors), _ = seeds.pair()
    digest = hashlib.sha256(content).digest()
    packed = [
        form.HEADER.pack(form.MAGIC, 1 + bool(hints), 2, 0, len(content), digest) + body.pack(content, hints)
        for hints in ((), tensors)
    ]
    good = [b"\0" + one for one in packed] + [b"\0" + form.pack(b""), b"\0" + form.pack(bytes(3000))]

    def opened(data: bytes) -> bytes:
        rest = data[form.HEADER.size :]
        count, lanes, segments, _, planned, matched = body.SIZES.unpack_from(rest)
        at = body.SIZES.size
        plan, inner = unframed(rest[at : at + planned]), unframed(rest[at + planned : at + planned + matched])
        sizes = struct.pack("<BHHII", data[4], count, lanes, segments, len(content))
        return b"\1" + sizes + sectioned(plan, inner) + rest[at + planned + matched :]

    def closed(data: bytes) -> bytes:
        version, count, lanes, segments, size = struct.unpack("<BHHII", data[:13].ljust(13, b"\0"))
        (plan, inner), rest = sections(data[13:], 2)
        frames = [zstd.compress(one, zstd.QUICK) if one else b"" for one in (plan, inner)]
        head = form.HEADER.pack(form.MAGIC, 1 + version % 2, 2, 0, size, digest)
        sizes = body.SIZES.pack(count, lanes, segments, max(0, len(plan) - 256 * count), *map(len, frames))
        return head + sizes + b"".join(frames) + rest

    def read(data: bytes) -> None:
        given = closed(data[1:]) if data[:1] == b"\1" else data[1:]
        found = form.unpack(given, limit=LIMIT)
        assert len(found) <= LIMIT
        assert hashlib.sha256(found).digest() == given[16:48]

    good += [opened(one) for one in packed]
    return Target(good, read)


def delta() -> Target:
    """HVD1: as it is (0), with plan and classes put into frames first (1), or a patch of bsdiff likewise (2)."""
    from haversack.tools.codec import bsdiff, delta_make, zstd
    from haversack.tools.codec import delta as form

    (old, before), (new, after) = seeds.pair()
    made, patch = delta_make.make(old, new, before, after), bsdiff.make(old, new)
    digests = hashlib.sha256(old).digest(), hashlib.sha256(new).digest()

    def opened(data: bytes) -> bytes:
        head, at = form.header(data), form.HEADER.size
        ends = at + head.plan[1], at + head.plan[1] + head.classes[1]
        plan, classes = unframed(data[at : ends[0]]), unframed(data[ends[0] : ends[1]])
        return b"\1" + len(new).to_bytes(4, "little") + sectioned(plan, classes) + data[ends[1] :]

    def closed(data: bytes) -> bytes:
        size = int.from_bytes(data[:4], "little")
        (plan, classes), rest = sections(data[4:], 2)
        frames = [zstd.compress(one, zstd.QUICK) if one else b"" for one in (plan, classes)]
        sizes = [(len(one), len(frame)) for one, frame in zip((plan, classes), frames, strict=True)]
        return form.Header(len(old), size, *digests, *sizes).packed() + b"".join(frames) + rest

    def patched(data: bytes) -> bytes:
        size = int.from_bytes(data[:4], "little")
        (control, mixed), extra = sections(data[4:], 2)
        parts = [bz2.compress(one) for one in (control, mixed, extra)]
        head = bsdiff.HEADER.pack(bsdiff.MAGIC, len(parts[0]), len(parts[1]), size)
        return form.wrapped(old, new, head + b"".join(parts))

    def unpatched(data: bytes) -> bytes:
        _, packed, differences, size = bsdiff.HEADER.unpack_from(data)
        at = bsdiff.HEADER.size
        ends = at + packed, at + packed + differences
        parts = [bz2.decompress(one) for one in (data[at : ends[0]], data[ends[0] : ends[1]], data[ends[1] :])]
        return b"\2" + size.to_bytes(4, "little") + sectioned(*parts[:2]) + parts[2]

    def read(data: bytes) -> None:
        how = {b"\1": closed, b"\2": patched}.get(data[:1], bytes)
        given = how(data[1:])
        assert hashlib.sha256(form.apply(old, given, limit=LIMIT)).digest() == given[56:88]

    good = [b"\0" + made, opened(made), b"\0" + form.wrapped(old, new, patch), unpatched(patch)]
    return Target(good, read)


def stream() -> Target:
    """STREAM: as it is (0), or chunks of true cipher text put together anew, as bytes say (1)."""
    from haversack.tools.trust import stream as form

    key, chunk = bytes(range(32)), form.CHUNK + form.TAG
    plains = [b"", b"short", bytes(range(256)) * 4096 * 2 + b"end"]
    made = [form.sealed(one, key, hashlib.sha256(one).hexdigest()) for one in plains]
    long = made[2]
    pieces = [long[: form.HEADER.size]]
    pieces += [long[at : at + chunk] for at in range(form.HEADER.size, len(long), chunk)]
    pieces += [made[1][: form.HEADER.size], made[1][form.HEADER.size :], b"", b"x"]

    def read(data: bytes) -> None:
        given = data[1:]
        if data[:1] == b"\1":
            given = b"".join(pieces[one % len(pieces)] for one in data[1:9])
        found = form.opened(given, key, limit=4 * LIMIT)
        assert (found, given) in zip(plains, made, strict=True), "something else than was sealed is opened"

    return Target([b"\0" + made[0], b"\0" + made[1], bytes([1, 0, 1, 2, 3]), bytes([1, 4, 5])], read)


def indexer(name: str, make: Callable[[], bytes]) -> Callable[[], Target]:
    """Return the target of one format's indexer, and for ONNX of what finds its outside data."""

    def made() -> Target:
        from haversack.base.stored import WIDTHS
        from haversack.tools.formats import index, onnx_outside

        reader = index.FORMATS[name]

        def read(data: bytes) -> None:
            end = 0
            for one in reader.index(data):
                assert end <= one.start < one.end <= len(data), "tensors overlap, or lie outside"
                assert one.length % WIDTHS[one.dtype] == 0
                end = one.end
            index.index(memoryview(data))
            if name == "onnx":
                onnx_outside.outside(data)

        return Target([make()], read)

    return made


def trusted() -> Target:
    """A repository of which one file is other bytes: as they are (0), or signed by who may sign them (1)."""
    from forger import Forger

    from haversack.base.errors import EnvironmentFault

    forger, cache = Forger(scratch()), scratch()

    def read(data: bytes) -> None:
        role = forger.roles[data[1] % len(forger.roles)] if len(data) > 1 else "root"
        honest = data[:1] == b"\1"
        given = forger.signed(role, data[2:]) if honest else data[2:]
        shutil.rmtree(cache, ignore_errors=True)
        device = forger.device(forger.files(role, given, follow=honest), cache)
        assert device.release("digits").line == "digits"

    good = []
    for number, role in enumerate(forger.roles):
        content = forger.content(role)
        good += [bytes([1, number]) + content]
        good += [bytes([0, number]) + forger.plain.get(forger.places[role], forger.signed(role, content))]
    return Target(good, read, (EnvironmentFault,))


def state() -> Target:
    """What a device keeps: floor, pointer, quarantine, settings, speeds, what tuning found, keys, a wrapped one."""
    from haversack.base.errors import UsageError
    from haversack.deliver import bandwidth, settings
    from haversack.deliver.floor import Floor, Lowest
    from haversack.deliver.quarantine import Bad, Quarantine
    from haversack.deliver.slots import CURRENT, QUARANTINE, Installed, Pointer, Slots
    from haversack.flow.device_state import LineState
    from haversack.run import tuning
    from haversack.tools.trust import canonical, wrap

    home = scratch()
    device = wrap.create_device(home / "device", "a-device")
    private, key = wrap.read_private(home / "device"), wrap.new_key()
    told = ("digits", "1.0.0", wrap.key_id(key))
    past = bandwidth.Past(transfers=(bandwidth.Transfer(9, 0.5, 1.0),), work={"hvd1": 1e-7})

    def at(name: str, record: object) -> tuple[str, bytes]:
        return name, canonical.dumps(record)

    kinds: list[tuple[tuple[str, bytes], Callable[[], object]]] = [
        (
            at("floor.json", Lowest(sequences={"digits": 3}, time=1.5)),
            lambda: datetime.fromtimestamp(Floor(home / "floor.json").time(), UTC),
        ),
        (at(CURRENT, Pointer(current=Installed("a", "1.0.0", 1, "litert"))), Slots(home).pointer),
        (
            at(QUARANTINE, Quarantine(releases=(Bad(1, "1.0.0", "x", 1.5),))),
            lambda: LineState("digits", Pointer(), Slots(home).quarantined(), 1, 0).lines(),
        ),
        (at("client.json", settings.Settings(repository="https://x")), lambda: settings.read(home / "client.json")),
        (at("speeds.json", past), lambda: bandwidth.read(home / "speeds.json").rate()),
        (at(tuning.FILE, tuning.Memory()), lambda: tuning._read(home)),
        (
            ("wrapped", wrap.wrap(key, device, *told[:2])),
            lambda: wrap.unwrap((home / "wrapped").read_bytes(), private, *told),
        ),
        (("device.pub", device.line().encode()), lambda: wrap.read_devices(home)),
        (("device", (home / "device").read_bytes()), lambda: wrap.read_private(home / "device")),
    ]

    def read(data: bytes) -> None:
        (name, _), reader = kinds[data[0] % len(kinds)] if data else kinds[0]
        (home / name).write_bytes(data[1:])
        reader()

    return Target([bytes([number]) + good for number, ((_, good), _) in enumerate(kinds)], read, (UsageError,))


TARGETS: Mapping[str, Callable[[], Target]] = {
    "records": records,
    "bundle": bundle,
    "golden": golden,
    "download": download,
    "delta": delta,
    "stream": stream,
    "safetensors": indexer("safetensors", seeds.safetensors),
    "onnx": indexer("onnx", seeds.onnx),
    "tflite": indexer("tflite", seeds.tflite),
    "gguf": indexer("gguf", seeds.gguf),
    "pte": indexer("pte", seeds.pte),
    "trusted": trusted,
    "state": state,
}
