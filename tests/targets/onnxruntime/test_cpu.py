"""Which processors need uint8 kernels, from what Linux says of them."""

from __future__ import annotations

import platform

import pytest

from haversack.targets.onnxruntime import cpu

ON = {"session.x64quantprecision": "1"}


@pytest.mark.parametrize(
    ("features", "options"),
    [
        (("x86_64", "avx2"), ON),
        (("x86_64",), ON),
        (("amd64", "avx2", "avx512f"), ON),
        (("x86_64", "avx2", "avx512_vnni"), {}),
        (("x86_64", "avx2", "avx_vnni"), {}),
        (("x86_64", "amx_int8"), {}),
        (("aarch64", "asimd", "asimddp"), {}),
        (("aarch64", "asimd"), {}),
        ((), {}),
    ],
)
def test_the_rule(features, options):
    assert cpu.session_options(features) == options


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("processor : 0\nflags\t\t: fpu avx2 avx512_vnni sse2\nbugs : avx_vnni\n", ["avx2", "avx512_vnni"]),
        ("Features\t: fp asimd asimddp crc32\nCPU part\t: 0xd0b\n", ["asimd", "asimddp"]),
        ("flags : avx2\nflags : avx2\n", ["avx2"]),
        ("", []),
        ("vendor_id : avx2\n", []),
    ],
)
def test_what_linux_says(tmp_path, text, found):
    listing = tmp_path / "cpuinfo"
    listing.write_text(text)
    assert cpu.features(listing) == (platform.machine().lower(), *found)


def test_without_a_listing_only_the_machine_is_known(tmp_path):
    assert cpu.features(tmp_path / "missing") == (platform.machine().lower(),)


def test_this_processor_has_a_name():
    assert cpu.features()[0] == platform.machine().lower()


def test_a_file_made_where_vnni_is_tells_what_it_needs_elsewhere():
    assert cpu.risks(ON) == ()
    (found,) = cpu.risks({})
    assert (found.kind, found.severity) == ("saturation-risk", "note")
    assert "session.x64quantprecision=1" in found.text
