"""``haversack bundle``, ``inspect``, ``verify`` and ``diff``: from a finished run to what can be shipped. No torch."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from haversack import report
from haversack.base.bundle import Variant
from haversack.base.counted import counted
from haversack.base.errors import Fault, HaversackError, VerificationError
from haversack.base.progress import Event, Sink, silent
from haversack.bundle import changes, make, variant
from haversack.bundle.contents import Contents, of
from haversack.bundle.variant import Left
from haversack.flow import provenance
from haversack.flow.making import ENCODINGS
from haversack.flow.outputs import GOLDEN
from haversack.flow.settings import built
from haversack.flow.shipped import Shipped
from haversack.flow.shipping import Wish, asked, demand_shippable
from haversack.flow.verify import CALL_SECONDS, Answer, Check, replayed
from haversack.measure import devices, needs
from haversack.measure.device import Device, NotThere, Opening
from haversack.report.record import Record
from haversack.targets.contract import SHELF
from haversack.tools.data import comparison, golden_file
from haversack.tools.data.preprocess import Pipeline
from haversack.tools.trust.bundle import Bundle, open_bundle
from haversack.tools.trust.canonical import shown
from haversack.tools.worker.process import Limits

AGAIN = "make it again: haversack bundle OUT --out NAME-VERSION.haversack"


def bundle(run: Path, to: Path, wish: Wish) -> Bundle:
    """Make a bundle of what a finished run ships; the same run gives the same bytes, whoever makes it and where.

    Args:
        run: the run's folder.
        to: the bundle's.
        wish: what the user said.

    Raises:
        UsageError: there is no finished run, or the wish cannot be met: all faults together.
        BudgetMissed: what would be shipped misses a limit.
        VerificationError: a file is not the one that was measured, or the run itself found it wrong.
        EnvironmentFault: the bundle cannot be written; nothing is left.
    """
    record = report.read(run)
    said = asked(record, run, to, wish)
    found = {target: _shipped(run, record, target) for target in said.targets}
    demand_shippable(record, found, wish, run)
    lefts = {target: _left(one) for target, one in found.items()}
    said.demand_fitting({target: left.artifact for target, left in lefts.items()})
    pieces = [piece for left in lefts.values() for piece in variant.pieces(left)]
    pieces += [*variant.encodings(list(lefts.values())), *said.pieces(record)]
    pieces += [provenance.piece(record, run, said.targets, wish.allow)]
    variants = [_variant(found[target], left) for target, left in lefts.items()]
    metric = (record.baseline.metric, record.baseline.unit)
    return make.write(said.name, said.version, pieces, variants, metric, to)


def inspect(folder: Path) -> Contents:
    """Return what is in a bundle, every file of it verified against the manifest.

    Raises:
        UsageError, Refused, EnvironmentFault: as ``open_bundle``.
    """
    opened = open_bundle(folder)
    golden = {
        one.target: golden_file.from_bytes(opened.read(file), where=str(folder / file.name))
        for one in opened.manifest.variants
        if (file := opened.manifest.file(one.target, "golden"))
    }
    return of(opened, {target: len(vectors) for target, vectors in golden.items()})


def verify(folder: Path, sink: Sink = silent, device: str = "local") -> Answer:
    """Check a bundle: every byte against its manifest, its preprocessing, and its golden vectors in each runtime here.

    Args:
        folder: the bundle.
        sink: told about each check.
        device: where the golden vectors run, by its name.

    Raises:
        UsageError: it is no bundle, or there is no such device.
        Refused: a file of it is not what the manifest says, or holds what it may not; all faults together.
        EnvironmentFault: it cannot be read, or the device is out of reach.
    """
    opened = open_bundle(folder)
    said = f"{counted(len(opened.manifest.files), 'file')} against the manifest, {opened.sha256[:16]}…"
    checks = [Check("bundle", "hashes", said)]
    if opened.preprocess:
        checks.append(_check("bundle", "preprocessing", partial(_operations, opened)))
    with devices.opened(device, Limits(call_seconds=CALL_SECONDS)) as there:
        for number, one in enumerate(opened.manifest.variants):
            sink(Event("verify", "progress", f"{one.target}: golden vectors", number, len(opened.manifest.variants)))
            checks.append(_check(one.target, "golden vectors", partial(_golden, there, opened, one)))
    words = ["haversack", "publish", str(folder), "--line", opened.manifest.name]
    publish = shlex.join([*words, "--repository", "site", "--keys", "keys"])
    return Answer(folder, tuple(checks), folder, AGAIN, publish)


def diff(old: Path, new: Path) -> changes.Difference:
    """Return which layers changed between two bundles, by how much, and which files would travel.

    Raises:
        UsageError, Refused, EnvironmentFault: as ``open_bundle``.
    """
    return changes.compare(open_bundle(old), open_bundle(new))


def _shipped(run: Path, record: Record, target: str) -> Shipped:
    candidate = record.best_of(target)
    assert candidate is not None, "asked() lets only targets through that ship"
    return Shipped.of(run, record, built(target, record.settings.get(target)), candidate)


def _left(shipped: Shipped) -> Left:
    proofs = {name: shipped.proofs.get(shipped.prefix + name, "") for name in (GOLDEN, ENCODINGS)}
    artifact = shipped.artifact()
    return Left(artifact, shipped.folder, (GOLDEN, proofs[GOLDEN]), (ENCODINGS, proofs[ENCODINGS]))


def _variant(shipped: Shipped, left: Left) -> Variant:
    found, artifact = shipped.record, left.artifact
    parity = found.parity
    exact = parity is not None and variant.exact(
        {one.kind for one in found.findings},
        whole=shipped.exact,
        differing=parity.reference_differing,
        compared=parity.reference_compared,
    )
    figures = {
        "value": found.quality.value if found.quality else None,
        "drop": found.quality.drop if found.quality else None,
        "ratio": found.latency.ratio if found.latency else None,
        "median_ms": found.latency.median_ms if found.latency else None,
        "peak_bytes": found.memory.peak_bytes if found.memory else None,
    }
    quality = {name: float(value) for name, value in figures.items() if value is not None}
    tolerance = 0.0 if exact else variant.TOLERANCE
    return Variant(left.target, artifact.runtime_version, artifact.cpu_features, exact, tolerance, quality)


def _check(target: str, name: str, look: partial[tuple[str, list[Fault]]]) -> Check:
    try:
        text, faults = look()
    except NotThere as error:
        return Check(target, name, error.cause, skipped=True)
    except VerificationError as error:
        told = Fault(shown(error.where), shown(error.cause))
        return Check(target, name, str(told), _shown(error.faults) or (told,))
    return Check(target, name, text, _shown(faults))


def _shown(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """Return faults as a terminal may show them: names in a file and what a runtime says are a stranger's words."""
    return tuple(Fault(shown(fault.where), shown(fault.cause)) for fault in faults)


def _operations(opened: Bundle) -> tuple[str, list[Fault]]:
    try:
        pipeline = Pipeline.parse(opened.preprocess)
    except HaversackError as error:
        raise VerificationError(error.cause, where="preprocess.json", faults=error.faults) from error
    return ", then ".join(step.name for _, step in pipeline.steps), []


def _golden(device: Device, opened: Bundle, one: Variant) -> tuple[str, list[Fault]]:
    """Run one variant's golden vectors."""
    file = opened.manifest.file(one.target, "golden")
    if file is None:
        raise NotThere("it has no golden vectors")
    if one.target not in SHELF.files():
        raise NotThere(f"this version of haversack knows no runtime {one.target}")
    lacking = [name for name in needs.of(one.target) if device.name == "local" and not needs.here(name)]
    if lacking:
        raise NotThere(f"not installed here: {', '.join(lacking)}    (pip install {' '.join(lacking)})")
    artifact = opened.artifacts[one.target]
    if strange := sorted({*artifact.session_options} - SHELF.type_of(one.target).session_settings):
        faults = tuple(Fault(f"session_options.{name}", f"{one.target} never sets it") for name in strange)
        raise VerificationError(
            "it asks for session options that no run gives", where=f"{one.target}.json", faults=faults
        )
    vectors = golden_file.from_bytes(opened.read(file), where=file.name)
    main = artifact.files[0].path
    opening = Opening((opened.folder / main).resolve(), one.target, artifact.session_options)
    near = None if one.exact else comparison.within(one.tolerance)
    wrong = replayed(device, opening, vectors, near, main)
    how = "bit for bit" if one.exact else f"within {one.tolerance:g}"
    return f"{counted(len(vectors), 'vector')} in the runtime, {how}", wrong
