"""The guide's pictures: each is there, says in words what it shows, and holds the numbers that the code gives today."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHOWN = re.compile(r"!\[(?P<words>[^\]]*)\]\((?P<path>[^)\s]+)\)")
SVG = "{http://www.w3.org/2000/svg}"
MOST_BYTES = 60_000
SLOW = {"water", "refit", "blocks"}
"""What takes half a minute to measure, or is trained: what it holds is judged by itself."""

with pytest.MonkeyPatch.context() as patched:
    patched.syspath_prepend(ROOT / "bench")
    import drawing
    import pictures
    import shown

DRAWN = sorted(pictures.PICTURES)


def references():
    return [(page, found) for page in PAGES for found in SHOWN.finditer(page.read_text(encoding="utf-8"))]


def root_of(name):
    return ET.fromstring((IMAGES / f"{name}.svg").read_text(encoding="utf-8"))  # noqa: S314 - our own


def words_of(svg):
    return sorted(element.text for element in ET.fromstring(svg).iter(f"{SVG}text"))  # noqa: S314 - our own


def numbers_in(thing):
    """Return every number of nested numbers, in order of the keys, and the words beside them."""
    if isinstance(thing, dict):
        return [each for key in sorted(thing) for each in (key, *numbers_in(thing[key]))]
    if isinstance(thing, list | tuple):
        return [each for one in thing for each in numbers_in(one)]
    return [thing]


def test_every_picture_that_a_page_shows_is_there_and_told_in_words():
    assert len(references()) >= len(DRAWN)
    for page, found in references():
        assert (page.parent / found["path"]).is_file(), f"{page}: {found['path']}"
        assert len(found["words"].split()) >= 3, f"{page}: {found['path']} is not told in words"


def test_every_picture_that_is_drawn_is_shown_in_the_guide():
    told = {Path(found["path"]).stem for page, found in references() if "guide" in page.parts}
    assert set(DRAWN) <= told
    assert {path.stem for path in IMAGES.glob("*.svg")} == set(DRAWN), "drawn by hand, or left over"


@pytest.mark.parametrize("name", DRAWN)
def test_a_picture_is_a_small_svg_by_itself(name):
    path = IMAGES / f"{name}.svg"
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size <= MOST_BYTES
    root = root_of(name)
    assert root.tag == f"{SVG}svg"
    assert root.get("role") == "img"
    assert root.findtext(f"{SVG}title") == pictures.PICTURES[name].title
    assert root.findtext(f"{SVG}desc") == pictures.PICTURES[name].words
    assert not re.search(r"<script|<image|<foreignObject|href=|url\((?!#)|@import", text)


@pytest.mark.parametrize("name", DRAWN)
def test_every_colour_has_another_one_on_dark_pages(name):
    root = root_of(name)
    colours = {
        element.get(key)
        for element in root.iter()
        for key in ("fill", "stroke")
        if element.get(key) not in {None, "none", "transparent"}
    }
    assert drawing.PAPER in colours, "it has no ground of its own"
    assert colours <= drawing.DARK.keys()
    style = root.findtext(f"{SVG}style")
    assert "prefers-color-scheme:dark" in style
    assert all(f"[fill='{colour}']{{fill:{drawing.DARK[colour]}}}" in style for colour in colours)


def contrast(one, other):
    """Return the contrast of two colours, as WCAG 2.1 has it."""

    def luminance(colour):
        parts = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)]) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colour", [drawing.INK, drawing.SOFT, drawing.BLUE, drawing.ORANGE, drawing.GREEN])
def test_words_and_lines_stand_out_on_both_grounds(colour):
    assert contrast(colour, drawing.PAPER) >= 4.5
    assert contrast(drawing.DARK[colour], drawing.DARK[drawing.PAPER]) >= 4.5


@pytest.mark.parametrize("name", [name for name in DRAWN if name not in SLOW])
def test_the_numbers_are_those_that_the_code_gives(name):
    held, now = (numbers_in(one) for one in (pictures.held(IMAGES / f"{name}.svg"), pictures.PICTURES[name].numbers()))
    assert [each for each in held if isinstance(each, str)] == [each for each in now if isinstance(each, str)]
    mine, theirs = ([each for each in one if not isinstance(each, str)] for one in (held, now))
    assert theirs == pytest.approx(mine, rel=5e-3, abs=1e-4), f"python bench/pictures.py --only {name}"


@pytest.mark.parametrize("name", DRAWN)
def test_drawn_again_from_its_numbers_it_says_the_same(name):
    path = IMAGES / f"{name}.svg"
    again = pictures.PICTURES[name].svg(pictures.held(path))
    assert words_of(again) == words_of(path.read_text(encoding="utf-8")), f"python bench/pictures.py --only {name}"


def test_water_fills_as_many_bytes_with_less_loss():
    numbers = pictures.held(IMAGES / "water.svg")
    layers = numbers["layers"]
    found = shown.water(layers)
    assert found["taken"] == numbers["taken"]
    assert found["loss"] == numbers["loss"]

    def total(places):
        return sum(one["bits"][places[key]] * one["weights"] for key, one in layers.items())

    assert total(found["taken"]) <= total(dict.fromkeys(layers, found["even"])) * (1 + 1e-9)
    assert found["loss"][1] < found["loss"][0] / 3
    assert all(len(one["bits"]) == len(one["losses"]) == 16 for one in layers.values())
    near = {key: one["losses"][pictures.PROBED] / one["weights"] for key, one in layers.items()}
    by_loss = sorted(layers, key=near.__getitem__)
    third = len(by_loss) // 3
    low, high = (
        np.mean([layers[key]["bits"][found["taken"][key]] for key in part])
        for part in (by_loss[:third], by_loss[-third:])
    )
    assert high > low + 1, "sensitive layers get more bits"


def test_compensation_lands_nearer_than_rounding_to_nearest():
    numbers = pictures.held(IMAGES / "compensate.svg")
    exact, hessian = np.array(numbers["weight"]), np.array(numbers["hessian"]).reshape(2, 2)
    for name, lost in zip(("nearest", "compensated"), numbers["lost"], strict=True):
        error = exact - numbers[name]
        assert error @ hessian @ error == pytest.approx(lost, rel=1e-2)
    assert numbers["lost"][1] < numbers["lost"][0] / 5
    assert numbers["path"][0] == numbers["weight"]
    assert numbers["path"][-1] == numbers["compensated"]


def test_a_refit_gains_on_both_halves_and_most_at_the_damping_that_is_marked():
    numbers = pictures.held(IMAGES / "refit.svg")
    fitted, judged = np.array(numbers["fitted"]), np.array(numbers["judged"])
    assert (np.diff(fitted) >= -1e-9).all(), "less damping always gains where it fits"
    assert (judged >= fitted - 1e-3).all()
    assert 0 < judged.argmin() < len(judged) - 1
    assert judged.min() < judged[0]
    assert judged.min() < 1


def test_blocks_lose_least_at_every_width():
    errors = pictures.held(IMAGES / "blocks.svg")["errors"]
    assert all(np.array(errors["block_reconstruction"]) < np.minimum(errors["gptq"], errors["adaround"]))
    assert all(np.diff(found).min() > 0 for found in errors.values()), "fewer bits lose more"


def test_trained_roundings_and_corrected_means_lose_less():
    ratios = np.array(pictures.held(IMAGES / "soft.svg")["ratio"])
    assert np.median(ratios) <= 1
    assert (ratios < 0.99).mean() > 0.3
    means = pictures.held(IMAGES / "means.svg")
    assert np.square(means["after"]).sum() < 0.5 * np.square(means["before"]).sum()


def test_the_range_of_least_error_is_where_the_curve_is_lowest():
    numbers = pictures.held(IMAGES / "clip.svg")
    both = np.add(numbers["rounding"], numbers["saturation"])
    lowest = numbers["ratios"][int(both.argmin())]
    chosen = [mse / most for mse, most in zip(numbers["mse"], numbers["minmax"], strict=True)]
    assert min(chosen) - 0.05 <= lowest <= max(chosen) + 0.05
    assert both.min() < 0.6 * both[-1]


@given(
    st.floats(0.1, 10),
    st.floats(0.1, 10),
    st.floats(-0.95, 0.95),
    st.floats(0.01, 10),
    st.tuples(st.floats(-3, 3), st.floats(-3, 3)),
)
def test_an_ellipse_is_where_the_error_is_one_and_the_same(a, b, correlation, lost, centre):
    hessian = np.array([[a, correlation * np.sqrt(a * b)], [correlation * np.sqrt(a * b), b]])
    points = pictures._ellipse(np.array(centre), hessian, lost) - centre
    errors = np.einsum("ni,ij,nj->n", points, hessian, points)
    near = 1e-4 * (np.linalg.norm(hessian) * np.abs(points).max() * 4 + 1)  # points are rounded to four decimals
    assert errors == pytest.approx(lost, abs=near)


@given(
    st.dictionaries(
        st.text(max_size=8), st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=4), max_size=4
    )
)
def test_numbers_and_words_survive_what_an_svg_is_written_in(numbers):
    words = "a < b & \"c\" > 'd' </desc>"
    made = drawing.dressed('<svg width="1" xmlns="http://www.w3.org/2000/svg"><g/></svg>', words, words, numbers)
    root = ET.fromstring(made)  # noqa: S314 - our own
    assert root.findtext(f"{SVG}title") == root.findtext(f"{SVG}desc") == words
    assert root.find(f"{SVG}g") is not None


@pytest.mark.parametrize("numbers", [{}, {"a": [1.5, -2e-9]}, {"<b> & ]]> \n é": {"c": [0]}}])
def test_numbers_are_read_back_as_they_were_written(tmp_path, numbers):
    path = tmp_path / "made.svg"
    path.write_text(
        drawing.dressed('<svg xmlns="http://www.w3.org/2000/svg"></svg>', "t", "d", numbers), encoding="utf-8"
    )
    assert pictures.held(path) == numbers


def test_a_picture_without_numbers_is_refused(tmp_path):
    path = tmp_path / "bare.svg"
    path.write_text("<svg/>")
    with pytest.raises(SystemExit, match="holds no numbers"):
        pictures.held(path)


def test_one_picture_is_drawn_anew_from_its_numbers(tmp_path, monkeypatch, capsys):
    before = (IMAGES / "joins.svg").read_bytes()
    (tmp_path / "joins.svg").write_bytes(before)
    monkeypatch.setattr(pictures, "FOLDER", tmp_path)
    monkeypatch.setattr(pictures, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["pictures.py", "--only", "joins", "--again"])
    pictures.main()
    assert "joins.svg: 3" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["joins.svg"]
    assert words_of((tmp_path / "joins.svg").read_text()) == words_of(before)
