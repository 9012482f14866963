"""What the user's targets and platform mean on this machine."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from haversack.base.errors import Fault, UsageError
from haversack.flow.request import ANY, Request, Runtimes, runtimes
from haversack.targets.contract import PLATFORMS, SHELF

FAKES = Path(__file__).parents[1] / "fakes" / "homeless"
OURS = ("executorch", "litert", "ncnn", "onnxruntime")
PLACES = {
    "android": OURS,
    "ios": OURS,
    "linux-arm": OURS,
    "browser": ("litert", "ncnn", "onnxruntime"),
}
WITH_ALL = pytest.mark.skipif(
    find_spec("executorch") is None or find_spec("ncnn") is None, reason="executorch or ncnn is not installed"
)
ELSEWHERE = "it does not run on {}"
EXPORTS = {"coreml": ("ios",), "tensorrt": ("linux-arm",)}
WRITTEN_ONLY = "its files are written but do not run here, so nothing can be measured"


def asked(*targets, platform=""):
    return runtimes(Request("job.py", targets=targets, platform=platform))


@pytest.fixture
def third_party(monkeypatch):
    """Two more targets, found by their entry points as an installed package's are."""
    monkeypatch.syspath_prepend(str(FAKES))
    assert {"homeless", "exporting"} <= set(SHELF.names())


def test_one_runtime_unless_more_are_asked_for():
    found = runtimes(Request("job.py"))
    assert found.targets == ("onnxruntime",)
    assert not found.one
    assert (found.left_out, found.shipping) == ({}, {})


@pytest.mark.parametrize(
    "targets",
    [("onnxruntime", "litert"), ("litert", "onnxruntime"), ("executorch", "litert", "onnxruntime")],
    ids=" ".join,
)
def test_the_order_is_the_users(targets):
    found = asked(*targets)
    assert found.targets == targets
    assert not found.one


@pytest.mark.parametrize(
    "typed, kept",
    [
        (("litert", "litert"), ("litert",)),
        (("litert", "onnxruntime", "litert"), ("litert", "onnxruntime")),
        (("onnxruntime", "litert", "litert", "onnxruntime"), ("onnxruntime", "litert")),
    ],
)
def test_a_name_twice_is_one_runtime(typed, kept):
    assert asked(*typed).targets == kept


def test_one_name_as_text_is_one_runtime():
    assert runtimes(Request("job.py", targets="litert")).targets == ("litert",)


@WITH_ALL
def test_any_is_all_that_run_here_and_one_ships():
    found = asked(ANY)
    assert found.targets == OURS
    assert found.one
    assert (found.left_out, found.shipping) == (dict.fromkeys(EXPORTS, WRITTEN_ONLY), {})
    assert "reference" not in found.targets


@WITH_ALL
def test_any_twice_is_any():
    found = asked(ANY, ANY)
    assert found.targets == OURS
    assert found.one


@pytest.mark.parametrize("typed", [(ANY, "litert"), ("litert", ANY)])
def test_any_beside_a_name_is_refused(typed):
    with pytest.raises(UsageError, match="litert is named beside it") as caught:
        asked(*typed)
    assert caught.value.next_step == "--target any alone, or the names alone: --target litert"


@WITH_ALL
@pytest.mark.parametrize("platform", PLATFORMS)
def test_any_on_a_platform_is_what_runs_there(platform):
    found = asked(ANY, platform=platform)
    assert found.targets == PLACES[platform]
    assert found.one
    why = dict.fromkeys(set(OURS) - set(PLACES[platform]), ELSEWHERE.format(platform))
    why |= {one: WRITTEN_ONLY if platform in places else ELSEWHERE.format(platform) for one, places in EXPORTS.items()}
    assert found.left_out == why
    assert tuple(found.shipping) == found.targets
    assert all(words and not words.endswith(".") for words in found.shipping.values())


@pytest.mark.parametrize("target, platform", [(one, place) for place, all_ in PLACES.items() for one in all_])
def test_a_named_runtime_tells_what_shipping_it_takes(target, platform):
    found = asked(target, platform=platform)
    assert found.targets == (target,)
    assert not found.one
    assert found.shipping == {target: SHELF.type_of(target).platforms[platform]}


@pytest.mark.parametrize("place", sorted({place for name in OURS for place in SHELF.type_of(name).platforms}))
def test_every_platform_of_a_runtime_can_be_asked_for(place):
    assert place in PLATFORMS


@pytest.mark.parametrize(
    "typed, near",
    [("andriod", "android"), ("brower", "browser"), ("IOS", ""), ("linux-amr", "linux-arm"), ("zzz", "")],
)
@pytest.mark.parametrize("target", ["onnxruntime", ANY])
def test_an_unknown_platform_is_refused_with_the_nearest(typed, near, target):
    with pytest.raises(UsageError) as caught:
        asked(target, platform=typed)
    error = caught.value
    assert f"there is no platform {typed!r}" in error.cause
    assert error.where == "--platform"
    assert error.next_step == "one of android, ios, linux-arm, browser"
    assert ("did you mean" in error.cause) == bool(near)
    assert error.cause.endswith(f"did you mean {near}?" if near else f"{typed!r}")


@pytest.mark.parametrize("targets", [("executorch",), ("onnxruntime", "executorch")], ids=" ".join)
def test_a_named_runtime_that_the_platform_lacks_is_refused(targets):
    with pytest.raises(UsageError, match="executorch does not run on browser") as caught:
        asked(*targets, platform="browser")
    assert caught.value.where == "--platform"
    assert caught.value.next_step == "--target any tries what does"


@pytest.mark.parametrize("typed, near", [("onnxruntme", "onnxruntime"), ("lite-rt", "litert"), ("zzz", "")])
@pytest.mark.parametrize("beside", [(), ("litert",), (ANY,)], ids=["alone", "beside a name", "beside any"])
def test_an_unknown_target_is_refused_even_beside_any(typed, near, beside):
    with pytest.raises(UsageError) as caught:
        asked(*beside, typed)
    assert f"there is no target named {typed!r}" in caught.value.cause
    assert (f"did you mean {near}?" in caught.value.cause) == bool(near)


@pytest.mark.parametrize("name", EXPORTS)
def test_what_only_writes_files_is_written_where_it_is_named(name):
    found = asked(name, "onnxruntime")
    assert found.targets == (name, "onnxruntime")
    assert found.left_out == {}
    (place,) = EXPORTS[name]
    assert place in SHELF.type_of(name).platforms
    assert asked(name, platform=place).shipping.keys() == {name}


def test_no_target_at_all_is_onnx_runtime():
    assert asked().targets == ("onnxruntime",)


def test_what_is_not_installed_is_left_out_of_any(third_party):
    found = asked(ANY)
    assert "homeless" not in found.targets
    assert found.left_out["homeless"] == "haversack-no-such-runtime, haversack-nor-this is not installed"


def test_what_only_writes_files_is_left_out_of_any(third_party):
    found = asked(ANY)
    assert "exporting" not in found.targets
    assert "do not run here" in found.left_out["exporting"]


def test_where_it_runs_is_told_before_what_is_missing(third_party):
    left_out = asked(ANY, platform="browser").left_out
    assert left_out["homeless"] == left_out["exporting"] == ELSEWHERE.format("browser")
    left_out = asked(ANY, platform="ios").left_out
    assert left_out["homeless"].endswith("is not installed")
    assert left_out["exporting"] == ELSEWHERE.format("ios")


def test_a_named_runtime_is_tried_though_it_is_not_installed(third_party):
    found = asked("homeless", "onnxruntime", platform="ios")
    assert found.targets == ("homeless", "onnxruntime")
    assert found.left_out == {}
    assert found.shipping["homeless"] == "nobody brings it"


def test_all_named_runtimes_that_the_platform_lacks_are_told_together(third_party):
    with pytest.raises(UsageError, match="homeless, exporting does not run on browser"):
        asked("homeless", "onnxruntime", "exporting", platform="browser")


def test_a_third_partys_runtime_has_its_place_among_any(monkeypatch):
    monkeypatch.syspath_prepend(str(FAKES.parent / "aborting"))
    found = asked(ANY)
    assert found.targets == tuple(sorted(found.targets))
    assert "aborting" in found.targets


REFUSED = {"executorch": (), "ncnn": (Fault("rnn:gru#0", "no gru here"),) * 5, "onnxruntime": ()}


def test_what_cannot_take_the_model_is_left_out_of_any_with_its_reason():
    tried = Runtimes(("executorch", "ncnn", "onnxruntime"), one=True, left_out={"coreml": WRITTEN_ONLY})
    found = tried.taking(REFUSED)
    assert found.targets == ("executorch", "onnxruntime")
    why = "it cannot take this model: 5 times (rnn:gru#0, rnn:gru#0, rnn:gru#0, …): no gru here"
    assert found.left_out == {"coreml": WRITTEN_ONLY, "ncnn": why}


@pytest.mark.parametrize(
    "tried",
    [Runtimes(("ncnn", "onnxruntime")), Runtimes(("ncnn",), one=True), Runtimes(("onnxruntime",), one=True)],
    ids=["named", "any, and none is left", "none refuses"],
)
def test_otherwise_all_are_kept_and_the_refusal_is_an_error(tried):
    assert tried.taking(REFUSED) == tried
