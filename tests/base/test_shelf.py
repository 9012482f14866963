"""Shelves, on a real package of parts in a temporary folder."""

from __future__ import annotations

import sys

import pytest

import haversack
from haversack.base import shelf as shelf_module
from haversack.base.errors import UsageError
from haversack.base.shelf import Shelf, nearest

PART = '''"""The file of a part."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class {name}:
    """{line}

    More about it.
    """

    keep: float = 0.5
    rounds: int = 1
'''
SHELF = Shelf("haversack.jars", "jar", also=frozenset({"shapes"}))


@pytest.fixture
def jars(tmp_path, monkeypatch):
    """A shelf haversack.jars beside the real ones, with three parts, one of which is a folder."""
    folder = tmp_path / "jars"
    (folder / "tin").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "__init__.py").write_text('"""Jars."""\n')
    (folder / "contract.py").write_text('"""No part."""\n')
    (folder / "shapes.py").write_text('"""No part either."""\n')
    (folder / "glass.py").write_text(PART.format(name="Glass", line="Keeps what is seen."))
    (folder / "clay.py").write_text(PART.format(name="Clay", line="Keeps what is cool."))
    (folder / "tin" / "__init__.py").write_text(PART.format(name="Tin", line="Keeps what is dry."))
    monkeypatch.setattr(shelf_module, "__file__", str(tmp_path / "base" / "shelf.py"))
    monkeypatch.setattr(haversack, "__path__", [*haversack.__path__, str(tmp_path)])
    yield folder
    for name in [name for name in sys.modules if name.startswith("haversack.jars")]:
        del sys.modules[name]


@pytest.fixture
def third_party(tmp_path, monkeypatch):
    """An installed package with two parts for the shelf, one of them named like ours."""
    site = tmp_path / "site"
    info = site / "thirdparty-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thirdparty\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[haversack.jars]\nbasket = thirdparty_jars:Basket\nglass = thirdparty_jars:Sly\n"
    )
    text = PART.format(name="Basket", line="Keeps what breathes.") + "\n\nclass Sly:\n    pass\n"
    (site / "thirdparty_jars.py").write_text(text)
    monkeypatch.syspath_prepend(str(site))
    yield site
    sys.modules.pop("thirdparty_jars", None)


def test_parts_are_files_and_folders_by_name(jars):
    assert list(SHELF.files()) == ["clay", "glass", "tin"]
    assert SHELF.names() == ("clay", "glass", "tin")


def test_the_catalogue_is_read_without_importing(jars):
    (jars / "glass.py").write_text(PART.format(name="Glass", line="Keeps what is seen.") + "\nraise RuntimeError\n")
    assert SHELF.catalogue() == {
        "clay": "Keeps what is cool.",
        "glass": "Keeps what is seen.",
        "tin": "Keeps what is dry.",
    }
    assert not [name for name in sys.modules if name.startswith("haversack.jars")]


@pytest.mark.parametrize("name, kind", [("glass", "Glass"), ("tin", "Tin")])
def test_a_part_is_found_by_its_file_s_name(jars, name, kind):
    assert SHELF.type_of(name).__name__ == kind


def test_a_part_is_built_with_its_settings(jars):
    built = SHELF.build("glass", {"keep": 0.9})
    assert (built.keep, built.rounds) == (0.9, 1)
    assert SHELF.build("glass") == SHELF.build("glass", {})


def test_wrong_settings_are_all_told_with_the_part_s_name(jars):
    with pytest.raises(UsageError) as caught:
        SHELF.build("glass", {"kep": 0.9, "rounds": "two"})
    assert caught.value.where == "jar glass"
    text = str(caught.value)
    assert "kep: unknown name; did you mean keep?" in text
    assert "rounds: 'two' is not a value of type int" in text


def test_an_unknown_part_shows_the_nearest(jars):
    with pytest.raises(UsageError) as caught:
        SHELF.type_of("glas")
    assert "there is no jar named 'glas'; did you mean glass?" in str(caught.value)
    assert "has: clay, glass, tin" in caught.value.next_step


@pytest.mark.parametrize("name", ["zzzz", "contract", "shapes", "__init__", "empty", "../base"])
def test_what_is_no_part(jars, name):
    with pytest.raises(UsageError, match="there is no jar named"):
        SHELF.type_of(name)


def test_a_file_with_two_parts_is_refused(jars):
    both = PART.format(name="One", line="A.") + PART.format(name="Two", line="B.").partition("annotations\n")[2]
    (jars / "pair.py").write_text(both)
    with pytest.raises(UsageError, match="exactly one public dataclass, this has One, Two") as caught:
        SHELF.type_of("pair")
    assert caught.value.where == "haversack.jars.pair"


def test_a_file_without_a_part_is_refused(jars):
    (jars / "void.py").write_text('"""Nothing here."""\n\n\nclass Plain:\n    """No dataclass."""\n')
    with pytest.raises(UsageError, match="this has none"):
        SHELF.type_of("void")


def test_what_a_part_s_file_imports_is_not_its_part(jars):
    text = PART.format(name="Glassware", line="Uses another.")
    (jars / "glassware.py").write_text(text.replace("\n\n\n@", "\nfrom haversack.jars.glass import Glass\n\n\n@"))
    mirror = PART.format(name="Gla", line="Is a prefix of another's name.")
    (jars / "gla.py").write_text(mirror.replace("\n\n\n@", "\nfrom haversack.jars.glass import Glass\n\n\n@"))
    assert SHELF.type_of("glassware").__name__ == "Glassware"
    assert SHELF.type_of("gla").__name__ == "Gla"


def test_private_records_in_a_part_s_file_do_not_count(jars):
    text = PART.format(name="Jug", line="A.") + PART.format(name="_State", line="B.").partition("annotations\n")[2]
    (jars / "jug.py").write_text(text)
    assert SHELF.type_of("jug").__name__ == "Jug"
    assert SHELF.catalogue()["jug"] == "A."


def test_third_parties_add_parts_and_hide_none_of_ours(jars, third_party):
    assert SHELF.names() == ("basket", "clay", "glass", "tin")
    assert SHELF.build("basket", {"rounds": 4}).rounds == 4
    assert SHELF.type_of("glass").__name__ == "Glass"
    assert "basket" not in SHELF.catalogue()


def test_the_nearest_name_may_be_a_third_party_s(jars, third_party):
    with pytest.raises(UsageError, match="did you mean basket?"):
        SHELF.type_of("baskt")


@pytest.mark.parametrize(
    ("name", "near"), [("nothere", ""), ("fp16", "; did you mean float16?"), ("corse", "; did you mean coarse?")]
)
def test_only_a_near_name_is_suggested(name, near):
    assert nearest(name, ["coarse", "float16", "mse"]) == near


def test_plain_settings_are_read_as_structured_ones_are():
    from haversack.base.recipe import plain, structure
    from haversack.tools.data.preprocess.pipeline import SHELF

    cases = [{}, {"factor": 2}, {"factor": 0.5, "offset": True}, {"factor": "1"}, {"factor": float("inf")}, {"no": 1}]
    for name in SHELF.names():
        kind = SHELF.type_of(name)
        for settings in cases:
            quick = plain(settings, kind)
            try:
                wanted = structure(settings, kind, where=name)
            except UsageError:
                assert quick is None, (name, settings)
            else:
                assert quick in (None, wanted), (name, settings)
    assert plain({"factor": 2}, SHELF.type_of("scale")) is not None, "the quick way is never taken"
    assert type(SHELF.build("scale", {"factor": 2}).factor) is float


def test_a_part_that_comes_later_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(Shelf, "_folder", lambda self: tmp_path)
    shelf = Shelf("haversack.metrics", "metric")
    (tmp_path / "one.py").write_text("")
    assert [*shelf.files()] == ["one"]
    (tmp_path / "two.py").write_text("")
    assert [*shelf.files()] == ["one", "two"]
