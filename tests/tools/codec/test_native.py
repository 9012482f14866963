"""The loops in C: the same bytes and refusals as in NumPy, no byte touched that is not theirs, and left out at will."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haversack.tools.codec import native, rans, tables

NATIVE = Path(__file__).parents[3] / "native"
CODES = ["done", "arguments", "table", "model", "words", "symbol"]


def both(library, call):
    """Return what a call returns or raises, in NumPy and in C."""
    found = []
    for switch in ("0", "1"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(native.SWITCH, switch)
            patch.setattr(native, "PLACE", library)
            assert (native.library() is None) == (switch == "0")
            try:
                found.append([array.tolist() for array in call()])
            except ValueError as error:
                found.append(str(error))
    return found


def stream(seed, count, lanes):
    drawn = np.random.default_rng(seed)
    symbols = np.clip(np.round(drawn.normal(0, 1 + seed % 30, count)), -127, 127).astype(np.int8).view(np.uint8)
    models = drawn.integers(0, 3, count).astype(np.uint8)
    counts = np.ones((3, 256), np.int64) * (seed % 2)
    np.add.at(counts, (models, symbols), 1)
    counts[counts.sum(axis=1) == 0, 0] = 1
    return symbols, models, tables.to_frequencies(tables.to_levels(counts)), lanes


drawn_streams = st.builds(stream, st.integers(0, 1 << 20), st.integers(0, 500), st.integers(1, 70))


@given(drawn_streams)
def test_the_same_bytes(library, drawn):
    symbols, models, frequencies, lanes = drawn
    in_numpy, in_c = both(library, lambda: rans.encode(symbols, models, frequencies, lanes))
    assert in_numpy == in_c
    states, words = np.array(in_c[0], np.uint32), np.array(in_c[1], np.uint16)
    decoded = both(library, lambda: [rans.decode(states, words, models, frequencies)])
    assert decoded == [[symbols.tolist()]] * 2


@given(st.integers(0, 1 << 20), st.integers(0, 300), st.integers(1, 40))
def test_the_same_without_what_is_certain(library, seed, count, lanes):
    drawn = np.random.default_rng(seed)
    models = drawn.integers(0, 4, count).astype(np.uint16)
    symbols = np.where(models < 2, 7 * models, drawn.integers(0, 3, count)).astype(np.uint8)
    counts = np.zeros((4, 256), np.int64)
    counts[[0, 1], [0, 7]] = 1
    counts[2:, :3] = drawn.integers(1, 90, (2, 3))
    frequencies = tables.to_frequencies(tables.to_levels(counts))
    states, words = rans.encode(symbols[models > 1], models[models > 1], frequencies, lanes)

    def taken():
        decoder = rans.Decoder(states, words, frequencies, uncertain=True)
        found = [decoder.take(part) for part in np.array_split(models, 2)]
        decoder.finish()
        return [np.concatenate(found), np.array(decoder.coded)]

    assert both(library, taken) == [[symbols.tolist(), int((models > 1).sum())]] * 2

    def cut():
        return [rans.Decoder(states, words[:-1], frequencies, uncertain=True).take(models)]

    in_numpy, in_c = both(library, cut) if len(words) else ("", "")
    assert in_numpy == in_c
    assert "the words end at symbol" in in_c or not len(words)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    drawn_streams,
    st.lists(st.tuples(st.sampled_from("swm"), st.integers(0, 1 << 20), st.integers(1, 65535)), max_size=4),
    st.integers(-3, 3),
)
def test_the_same_refusals(library, drawn, damage, words_more):
    symbols, models, frequencies, lanes = drawn
    states, words = rans.encode(symbols, models, frequencies, lanes)
    kept = max(len(words) + words_more, 0)
    held = {"s": states, "w": np.resize(words, kept) if words.size else np.zeros(kept, np.uint16), "m": models.copy()}
    for which, at, value in damage:
        buffer = held[which]
        if buffer.size:
            buffer[at % buffer.size] ^= np.array(value * (4097 if which == "s" else 1)).astype(buffer.dtype)
    half = len(models) // 2

    def decoded():
        decoder = rans.Decoder(held["s"], held["w"], frequencies)
        parts = [decoder.take(held["m"][:half]), decoder.take(held["m"][half:])]
        decoder.finish()
        return parts

    in_numpy, in_c = both(library, decoded)
    assert in_numpy == in_c


@given(drawn_streams, st.integers(0, 255))
def test_the_same_refusals_of_an_encoder(library, drawn, symbol):
    symbols, models, frequencies, lanes = drawn
    symbols = np.append(symbols, np.uint8(symbol))
    models = np.append(models, np.uint8(symbol % 4))
    in_numpy, in_c = both(library, lambda: rans.encode(symbols, models, frequencies, lanes))
    assert in_numpy == in_c


@pytest.fixture(scope="module")
def hostile(build, tmp_path_factory):
    """Return native/hostile.c as a program whose every access is checked."""
    found = build.compiler()
    if found is None:
        pytest.skip("no C compiler is installed")
    program = tmp_path_factory.mktemp("hostile") / "hostile"
    checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1"]
    warnings = ["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    subprocess.run([found, *warnings, *checks, str(NATIVE / "hostile.c"), "-o", str(program)], check=True)
    return program


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nothing_else_is_touched(hostile, seed):
    done = subprocess.run([hostile, str(seed), "4000"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    often = dict(zip(CODES, map(int, done.stdout.split()), strict=True))
    assert min(often.values()) > 50, often


def test_no_warning_of_the_compiler(build):
    found = build.compiler()
    if found is None:
        pytest.skip("no C compiler is installed")
    warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror", "-fsyntax-only"]
    done = subprocess.run([found, "-std=c11", *warnings, str(NATIVE / "rans.c")], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def opened(library):
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(native.SWITCH, raising=False)
        patch.setattr(native, "PLACE", library)
        return native.library()


def test_the_library_refuses_by_itself(library):
    frequencies = np.zeros((1, 256), np.int64)
    frequencies[0, 7] = rans.TOTAL
    loaded = opened(library)
    made = native.Tables(loaded, frequencies, slots=True)
    states, words = np.full(2, 1 << 16, np.uint32), np.zeros(0, "<u2")
    symbols, models = np.array([7, 7, 8], np.uint8), np.zeros(3, np.uint8)
    with pytest.raises(ValueError, match=r"a symbol without a frequency \(2\)"):
        made.encode(states, symbols, models, None)
    with pytest.raises(ValueError, match=r"a table's number \(1\)"):
        made.encode(states, symbols, models + np.uint8(1), None)
    with pytest.raises(ValueError, match="arguments"):
        made.encode(states, symbols, models, np.array([1, 1, 2], np.uint64))
    for lane, read, lanes in ((2, 0, 2), (0, 1, 2), (0, 0, 0)):
        with pytest.raises(ValueError, match="arguments"):
            made.decode(states[:lanes], lane, words, read, models, None)
    with pytest.raises(ValueError, match="arguments"):
        native.Tables(loaded, frequencies, slots=False).decode(states, 0, words, 0, models, None)
    with pytest.raises(ValueError, match="the sum of a table"):
        native.Tables(loaded, frequencies + 1, slots=True)
    with pytest.raises(ValueError, match="arguments"):
        native.Tables(loaded, np.resize(frequencies, (257, 256)), slots=True)


def test_only_buffers_of_their_kind_are_passed(library):
    frequencies = np.zeros((1, 256), np.int64)
    frequencies[0, 7] = rans.TOTAL
    made = native.Tables(opened(library), frequencies, slots=True)
    states, symbols, models = np.full(2, 1 << 16, np.uint32), np.full(6, 7, np.uint8), np.zeros(6, np.uint8)
    with pytest.raises(ValueError, match="contiguous"):
        made.encode(states, symbols[::2], models[:3], None)
    with pytest.raises(ValueError, match="not int64"):
        made.encode(states.astype(np.int64), symbols, models, None)


def test_the_switch(library, monkeypatch):
    monkeypatch.setattr(native, "PLACE", library)
    for told, there in (("0", False), ("1", True), ("", True)):
        monkeypatch.setenv(native.SWITCH, told)
        assert (native.library() is not None) == there


def test_what_is_no_library_of_ours_is_left_alone(build, tmp_path):
    assert opened(tmp_path / "none.so") is None
    (tmp_path / "text.so").write_text("no library")
    assert opened(tmp_path / "text.so") is None
    found = build.compiler()
    if found is None:
        pytest.skip("no C compiler is installed")
    for name, source in {"older": "unsigned haversack_revision(void) { return 0; }", "other": "int other;"}.items():
        (tmp_path / f"{name}.c").write_text(source)
        command = [found, "-shared", "-fPIC", str(tmp_path / f"{name}.c"), "-o", str(tmp_path / f"{name}.so")]
        subprocess.run(command, check=True)
        assert opened(tmp_path / f"{name}.so") is None


def test_a_build_is_whole_or_none(build, tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    assert build.build(tmp_path / "none.so") == "there is no C compiler"
    monkeypatch.setenv("CC", "false")
    assert "false failed" in build.build(tmp_path / "none.so")
    assert list(tmp_path.iterdir()) == []


def wheel(folder, environment, **more):
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "-w", str(folder)]
    command.append(str(NATIVE.parent))
    done = subprocess.run(command, env={**environment, **more}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = folder.iterdir()
    return found


@pytest.mark.parametrize("compiler", ["gcc", "no-such-compiler"])
def test_a_wheel_has_the_loops_where_a_compiler_is(build, tmp_path, environment, compiler, monkeypatch):
    pytest.importorskip("hatchling")
    monkeypatch.setenv("CC", compiler)
    there = build.compiler() is not None
    found = wheel(tmp_path / "wheels", environment, CC=compiler)
    with zipfile.ZipFile(found) as opened_wheel:
        names = opened_wheel.namelist()
        opened_wheel.extractall(tmp_path / "installed")
    assert (build.IN_PACKAGE in names) == there
    assert found.name.endswith("-py3-none-any.whl") != there
    assert not [name for name in names if name.endswith((".c", ".so")) and name != build.IN_PACKAGE]
    script = "from haversack.tools.codec import native; print(native.PLACE, native.library() is not None)"
    environment = {**environment, "PYTHONPATH": str(tmp_path / "installed")}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(tmp_path / "installed" / build.IN_PACKAGE), str(there)]
