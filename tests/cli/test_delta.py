"""``haversack delta`` as it is typed: files that come back whole, and every word, file and byte that is wrong."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys

import pytest
from commands import typed
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from shop import model

from haversack.flow import deltas
from haversack.tools.codec import bsdiff, delta

OLD, NEW = model(1.0), model(2.0)
CODECS = ("hvd1", "bsdiff", "auto")


@pytest.fixture
def pair(tmp_path, monkeypatch):
    """Work in a folder with two models."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.onnx").write_bytes(OLD)
    (tmp_path / "new.onnx").write_bytes(NEW)
    return tmp_path


@pytest.fixture
def patch(pair):
    (pair / "p").write_bytes(deltas.make(OLD, NEW, "hvd1")["hvd1"])
    return pair / "p"


@pytest.mark.parametrize("codec", CODECS)
def test_a_model_comes_back_whole(pair, codec):
    made = typed("delta", "make", "old.onnx", "new.onnx", "p", "--codec", codec, "--json")
    assert (made.code, made.err) == (0, "")
    size = (pair / "p").stat().st_size
    assert made.json["bytes"] == size == made.json["sizes"][made.json["codec"]]
    assert made.json["bytes"] == min(made.json["sizes"].values())
    assert set(made.json["sizes"]) == ({"hvd1", "bsdiff"} if codec == "auto" else {codec})
    assert made.json["ratio"] == pytest.approx(size / len(NEW))
    done = typed("delta", "apply", "old.onnx", "p", "back.onnx", "--json")
    assert done.code == 0
    assert (pair / "back.onnx").read_bytes() == NEW
    sha256 = hashlib.sha256(NEW).hexdigest()
    assert done.json == {"path": "back.onnx", "bytes": len(NEW), "sha256": sha256, "codec": made.json["codec"]}


def test_both_say_in_words_what_they_did(pair):
    made = typed("delta", "make", "old.onnx", "new.onnx", "p")
    size = (pair / "p").stat().st_size
    other = len(deltas.make(OLD, NEW, "bsdiff")["bsdiff"])
    share = f"{size / len(NEW):.1%}"
    assert made.out == f"p: {size} bytes (hvd1), {share} of the new file's {len(NEW):,}; bsdiff takes {other} bytes\n"
    done = typed("delta", "apply", "old.onnx", "p", "back")
    assert done.out == f"back: {len(NEW):,} bytes, sha256 {hashlib.sha256(NEW).hexdigest()} (hvd1)\n"


def test_files_without_anything_in_common_are_told(pair):
    (pair / "old.onnx").write_bytes(random.Random(1).randbytes(3000))
    (pair / "new.onnx").write_bytes(random.Random(2).randbytes(3000))
    made = typed("delta", "make", "old.onnx", "new.onnx", "p")
    assert made.code == 0
    assert made.out.endswith("the new file itself is smaller: the two have too little in common for a delta\n")
    assert typed("delta", "apply", "old.onnx", "p", "back").code == 0
    assert (pair / "back").read_bytes() == (pair / "new.onnx").read_bytes()


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(old=st.binary(max_size=400), new=st.binary(max_size=400), codec=st.sampled_from(CODECS))
def test_any_two_files(tmp_path_factory, old, new, codec):
    folder = tmp_path_factory.mktemp("any")
    (folder / "old").write_bytes(old)
    (folder / "new").write_bytes(new)
    made = deltas.make_file(folder / "old", folder / "new", folder / "p", codec)
    assert (made.old_bytes, made.new_bytes) == (len(old), len(new))
    assert made.ratio == (made.bytes / len(new) if new else 0.0)
    applied = deltas.apply_file(folder / "old", folder / "p", folder / "back")
    assert (folder / "back").read_bytes() == new
    assert applied.codec == made.codec


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(place=151, bit=0, cut=True)  # within a block
@given(place=st.integers(min_value=0), bit=st.integers(0, 7), cut=st.booleans())
def test_a_spoiled_delta_writes_nothing(tmp_path_factory, place, bit, cut):
    """Every byte of a delta counts: the file comes whole, or there is none and no half of one."""
    folder = tmp_path_factory.mktemp("spoiled")
    data = bytearray(deltas.make(OLD, NEW, "hvd1")["hvd1"])
    place %= len(data)
    if cut:
        del data[place:]
    else:
        data[place] ^= 1 << bit
    (folder / "old").write_bytes(OLD)
    (folder / "p").write_bytes(bytes(data))
    done = typed("delta", "apply", folder / "old", folder / "p", folder / "back")
    assert "Traceback" not in done.err
    if done.code == 0:
        assert (folder / "back").read_bytes() == NEW
    else:
        assert done.code == 7
        assert sorted(path.name for path in folder.iterdir()) == ["old", "p"]


def test_a_delta_for_another_file_names_the_file(pair, patch):
    done = typed("delta", "apply", "new.onnx", "p", "back", "--json")
    assert done.code == done.json["exit_code"] == 7
    error = done.json["error"]
    assert error["kind"] == "Refused"
    assert error["where"] == "new.onnx"
    assert f"the delta was made for a file of {len(OLD)} bytes" in error["cause"]
    assert hashlib.sha256(OLD).hexdigest() in error["cause"]
    assert not (pair / "back").exists()


def test_what_is_no_delta_is_named_with_the_place_in_it(pair):
    done = typed("delta", "apply", "old.onnx", "new.onnx", "back")
    assert done.code == 7
    assert "new.onnx: byte 0" in done.err
    assert not (pair / "back").exists()


@pytest.mark.parametrize(
    "words, said, step",
    [
        (("make", "none", "new.onnx", "p"), "none: there is no such file", ""),
        (("make", "old.onnx", "none", "p"), "none: there is no such file", ""),
        (("make", "folder", "new.onnx", "p"), "folder: it is a folder, not a file", "name a file"),
        (("make", "old.onnx", "new.onnx", "text"), "text: it is there, and is no delta", "give another name"),
        (("make", "old.onnx", "new.onnx", "folder"), "folder: it is a folder, not a file", "name a file"),
        (("apply", "none", "p", "back"), "none: there is no such file", ""),
        (("apply", "old.onnx", "none", "back"), "none: there is no such file", ""),
        (("apply", "old.onnx", "p", "text"), "text: it is there, and is not replaced", "remove it first"),
        (("apply", "old.onnx", "p", "old.onnx"), "old.onnx: it is there, and is not replaced", "remove it first"),
        (("make", "old.onnx", "new.onnx"), "delta make: PATCH is missing", "haversack delta make --help"),
        (("apply", "old.onnx"), "delta apply: PATCH is missing", "haversack delta apply --help"),
        (("make", "old.onnx", "new.onnx", "p", "--codec", "zip"), "zip", "haversack delta --help"),
        (("mend", "old.onnx"), "mend", "haversack delta --help"),
        (("make", "old.onnx", "new.onnx", "p", "more"), "the command does not take 'more'", "haversack delta --help"),
        (("make", "old.onnx", "new.onnx", "p", "--cdec", "hvd1"), "did you mean --codec?", "p --codec hvd1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_typed_wrongly(pair, patch, words, said, step):
    (pair / "folder").mkdir()
    (pair / "text").write_text("mine")
    before = patch.read_bytes()
    done = typed("delta", *words)
    assert done.code == 2
    assert said in done.err
    assert step in done.err
    assert done.out == ""
    assert (pair / "text").read_text() == "mine"
    assert (pair / "old.onnx").read_bytes() == OLD
    assert patch.read_bytes() == before
    assert not (pair / "back").exists()


def test_an_older_delta_of_that_name_is_replaced(pair, patch):
    assert typed("delta", "make", "new.onnx", "old.onnx", "p").code == 0
    assert delta.header((pair / "p").read_bytes()).new_sha256 == hashlib.sha256(OLD).digest()


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
@pytest.mark.parametrize("words", [("make", "old.onnx", "new.onnx", "shut/p"), ("apply", "old.onnx", "p", "shut/new")])
def test_a_folder_that_may_not_be_written(pair, patch, words):
    (pair / "shut").mkdir(mode=0o500)
    done = typed("delta", *words, "--json")
    assert done.code == done.json["exit_code"] == 6
    assert done.json["error"]["next"]
    assert list((pair / "shut").iterdir()) == []


def test_a_file_that_says_it_yields_more_than_allowed_is_not_begun(pair, patch):
    from haversack.base.errors import Refused

    with pytest.raises(Refused, match=f"the new file has {len(NEW)} bytes, and 100 are allowed"):
        deltas.apply_file(pair / "old.onnx", patch, pair / "back", limit=100)
    assert not (pair / "back").exists()


def test_the_help_of_the_command_tells_its_verbs(capfd):
    done = typed("delta", "--help")
    assert done.code == 0
    words = " ".join(done.out.replace("│", " ").split())
    assert "apply Write the new file from the old one and a delta" in words
    assert "make Write what makes the new file from the old one" in words
    assert typed("delta").out == done.out


@pytest.mark.parametrize("verb", ["make", "apply"])
def test_help_of_a_verb_is_the_first_line_of_its_function(verb):
    from haversack.cli import VERBS
    from haversack.cli import delta as module

    assert VERBS["delta"][verb] == (getattr(module, verb).__doc__ or "").partition("\n")[0]


def test_its_file_is_loaded_without_the_parser(environment):
    script = "import sys; sys.modules['cyclopts'] = None; import haversack.cli.delta as d; print(d.make, d.apply)"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("old, new", [(OLD, NEW), (b"a" * 5000, b"a" * 5000 + b"b"), (b"", b"x" * 99)])
def test_the_smallest_is_what_publishing_takes_and_is_called_what_it_is(old, new):
    form, content = deltas.smallest(old, new)
    made = {"hvd1": deltas.make(old, new, "hvd1")["hvd1"], "bsdiff": bsdiff.make(old, new)}
    assert content == made[form] == min(made.values(), key=len)
    undone = {"hvd1": delta.apply, "bsdiff": bsdiff.apply}[form](old, content, limit=len(new))
    assert undone == new


def test_publishing_calls_a_patch_a_patch_and_words_words():
    form, content = deltas.smallest(b"", b"x" * 99)
    assert (form, content[:8]) == ("bsdiff", b"BSDIFF40")
    form, content = deltas.smallest(b"a" * 5000, b"a" * 5000 + b"b")
    assert (form, content[:4]) == ("hvd1", b"HVD1")


@pytest.mark.parametrize(
    "words, step",
    [
        ("make old.onnx new.onnx --out d.hvd", "haversack delta make old.onnx new.onnx d.hvd"),
        ("make old.onnx new.onnx --out=d.hvd", "haversack delta make old.onnx new.onnx d.hvd"),
        ("make --old old.onnx --new new.onnx --patch d", "haversack delta make old.onnx new.onnx d"),
        ("make --new new.onnx --old old.onnx --patch d", "haversack delta make --help"),
        ("make old.onnx new.onnx d --codek bsdiff", "haversack delta make old.onnx new.onnx d --codec bsdiff"),
        ("apply old.onnx p --out back", "haversack delta apply old.onnx p back"),
    ],
)
def test_files_have_no_names(pair, patch, words, step):
    done = typed("delta", *words.split())
    assert done.code == 2
    assert done.err.endswith(f"  next: {step}\n")
    assert "--old?" not in done.err
    if "--help" not in step:
        assert typed(*step.split()[1:]).code == 0


def test_a_folder_is_told_as_one(pair, patch):
    (pair / "folder").mkdir()
    calls = ("make folder new.onnx d", "make old.onnx folder d", "make old.onnx new.onnx folder")
    for words in (*calls, "apply folder p back", "apply old.onnx folder back", "apply old.onnx p folder"):
        done = typed("delta", *words.split())
        assert (done.code, "folder: it is a folder, not a file\n  next: " in done.err) == (2, True), words


def test_files_in_another_order_or_of_another_delta_have_a_next_step(pair, patch):
    for words in ("apply p old.onnx back", "apply old.onnx back p"):
        done = typed("delta", *words.split())
        assert done.code == 2
        assert done.err.endswith("  next: haversack delta apply old.onnx p back\n")
    assert "next: give the file that the delta was made for" in typed("delta", "apply", "new.onnx", "p", "back").err
    assert "make OLD NEW PATCH" in typed("delta", "make", "none", "new.onnx", "d").err
    assert "make it anew" in typed("delta", "apply", "old.onnx", "new.onnx", "back").err
