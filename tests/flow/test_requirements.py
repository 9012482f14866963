"""Requirements and versions: what is written is read, what is there is held against it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from haversack.base.errors import ConversionError, EnvironmentFault, MissingExtra, UsageError
from haversack.flow import requirements
from haversack.flow.request import Request, opened
from haversack.flow.requirements import Package, commands, demand, packages, parsed
from haversack.targets.contract import SHELF, Target


@pytest.mark.parametrize(
    "line, name, extra, wanted",
    [
        ("numpy>=2.1", "numpy", "core", ">=2.1"),
        ('torch==2.13.0; extra == "pack"', "torch", "pack", "==2.13.0"),
        ("onnx-ir>=1.1,<2 ; extra == 'pack'", "onnx-ir", "pack", ">=1.1,<2"),
        ('pillow; extra == "dev"', "pillow", "dev", ""),
        ('a.b_c>=1; python_version >= "3.11" and extra == "lm"', "a.b_c", "lm", ">=1"),
    ],
)
def test_a_requirement(line, name, extra, wanted):
    found = parsed(line)
    assert (found.name, found.extra, found.wanted) == (name, extra, wanted)


def test_what_is_no_requirement():
    with pytest.raises(ValueError, match="not a requirement"):
        parsed("==3")


def test_every_extra_of_this_very_project_is_known():
    found = packages()
    assert {"core", "pack", "dev"} <= {one.extra for one in found}
    assert found[0].extra == "core"
    assert {"torch", "onnxruntime"} <= {one.name for one in found if one.extra == "pack"}
    assert all(one.state == "installed" for one in found if one.extra in {"core", "pack"})


def test_states_and_commands():
    ones = [Package("a", "core", ">=1", ""), Package("b", "pack", ">=2", "1"), Package("c", "lm", "", "1")]
    assert [one.state for one in ones] == ["missing", "wrong version", "installed"]
    assert commands(ones) == {"core": "pip install 'haversack'", "pack": "pip install 'haversack[pack]'"}


def test_a_missing_extra_names_all_that_is_missing(monkeypatch):
    there = requirements.installed
    monkeypatch.setattr(requirements, "installed", lambda name: "" if name in {"onnx", "scipy"} else there(name))
    with pytest.raises(MissingExtra) as caught:
        demand("pack", purpose="packing")
    assert "packing needs the package onnx, scipy" in str(caught.value)
    assert "pip install 'haversack[pack]'" in str(caught.value)
    assert caught.value.exit_code == 6
    demand("core", purpose="anything")


def test_without_installation_and_source_nothing_is_known(tmp_path):
    assert requirements._of_tree(tmp_path / "pyproject.toml") == []


def test_what_a_target_lacks_is_told_before_the_job_is_opened(monkeypatch):
    there = requirements.installed
    gone = {"coremltools", "homemade"}
    monkeypatch.setattr(requirements, "installed", lambda name: "" if name in gone else there(name))
    with pytest.raises(EnvironmentFault) as caught:
        opened(Request("no_such_job.py", targets=("onnxruntime", "coreml")))
    assert caught.value.exit_code == 6
    assert [str(fault) for fault in caught.value.faults] == ["--target coreml: coremltools is not installed"]
    assert caught.value.next_step == "pip install 'haversack[coreml]'"
    with pytest.raises(UsageError, match="there is no such job file"):
        opened(Request("no_such_job.py", targets=("onnxruntime",)))


def test_a_third_partys_package_is_named_as_it_is():
    @dataclass(frozen=True)
    class Homemade(Target):
        packages = ("haversack-no-such-runtime", "numpy")

    with pytest.raises(EnvironmentFault) as caught:
        requirements.demand_runtimes({"homemade": Homemade(), "coreml": SHELF.build("coreml")})
    assert [fault.where for fault in caught.value.faults] == ["--target homemade"]
    assert caught.value.next_step == "pip install haversack-no-such-runtime"
    requirements.demand_runtimes({"coreml": SHELF.build("coreml")})


def test_a_version_that_was_not_verified_is_told_before_the_job_is_opened(monkeypatch):
    monkeypatch.setattr(SHELF.type_of("onnxruntime"), "verified", {"onnxruntime": ">=99"})
    with pytest.raises(ConversionError, match="not verified") as caught:
        opened(Request("no_such_job.py", targets=("litert", "onnxruntime")))
    (fault,) = caught.value.faults
    assert fault.where == "--target onnxruntime"
    assert ">=99 is verified" in fault.cause
    assert caught.value.next_step == "pip install 'onnxruntime>=99'"
