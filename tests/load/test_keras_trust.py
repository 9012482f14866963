"""A Keras file names classes and may hold code: nothing of it is run, and what is not as Keras writes it is refused."""

from importlib.util import find_spec

import pytest

from haversack.base.errors import ConversionError, JobError, Refused
from haversack.load import keras_file

pytestmark = [
    pytest.mark.skipif(find_spec("keras") is None or find_spec("h5py") is None, reason="the extra keras"),
    pytest.mark.filterwarnings("ignore"),  # Keras and h5py tell of themselves
]


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_code_is_found_before_keras_sees_the_file(keras, tmp_path, monkeypatch, suffix):
    layers = [keras.layers.Lambda(lambda x: x * 2, name="double"), keras.layers.GRU(2, name="steps")]
    keras.Sequential([keras.Input((3, 2)), *layers]).save(tmp_path / f"net.{suffix}")
    monkeypatch.setattr(keras_file, "_keras", lambda: pytest.fail("Keras was called"))
    with pytest.raises(ConversionError) as caught:
        keras_file.module_of(tmp_path / f"net.{suffix}")
    assert caught.value.exit_code == 4
    assert [fault.where for fault in caught.value.faults] == ["double", "steps"]
    assert "is a Lambda" in caught.value.faults[0].cause
    assert caught.value.tried.endswith("nothing of it was run")


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["config"]["layers"][1].update(module="os", class_name="Conv2D"),
        lambda c: c["config"]["layers"][1]["config"].update(activation={
            "module": "builtins", "class_name": "function", "config": "eval", "registered_name": "eval"}),
        lambda c: c["config"]["layers"][1]["config"].update(kernel_initializer={
            "module": "subprocess", "class_name": "Popen", "config": {"args": "true"}}),
        lambda c: c["config"]["layers"][1]["build_config"].update(x=[{"class_name": "__lambda__", "config": {}}]),
        lambda c: c["config"]["layers"][1]["config"].update(kernel_initializer={
            "class_name": "Constant", "config": {"value": {"class_name": "Lambda", "config": {}}}}),
        lambda c: c["config"]["layers"][1].update(class_name=["Conv2D"]),
        lambda c: c.update(class_name="Evil", module="evil"),
    ],
)  # fmt: skip
def test_a_class_of_another_place_is_refused(files, changed, tmp_path, change):
    path = changed(files[0] / "net.keras", tmp_path / "net.keras", change)
    with pytest.raises(ConversionError) as caught:
        keras_file.check(path)
    assert len(caught.value.faults) == 1


def test_more_weights_than_the_file_holds_are_refused_before_they_are_made(files, changed, tmp_path):
    def grown(config):
        config["config"]["layers"][-1]["config"]["units"] = 10**9

    path = changed(files[0] / "net.keras", tmp_path / "net.keras", grown)
    with pytest.raises(Refused, match="it describes 9000000352 weights and holds 397"):
        keras_file.module_of(path)


def test_a_record_that_keras_does_not_write_is_refused(files, changed, tmp_path):
    path = changed(files[0] / "net.keras", tmp_path / "net.keras", lambda c: None, more={"assets/x": b"1"})
    with pytest.raises(Refused, match="assets/x"):
        keras_file.check(path)


def test_records_that_unpack_to_more_than_the_file_are_refused(files, changed, tmp_path):
    bomb = {"metadata.json": b" " * (1 << 20)}
    path = changed(files[0] / "net.keras", tmp_path / "net.keras", lambda c: None, more=bomb, packed=True)
    with pytest.raises(Refused, match="more bytes than the file"):
        keras_file.check(path)


@pytest.mark.parametrize("kind", ["link", "bomb", "external", "strings"])
def test_tensors_that_are_none_are_refused(files, tmp_path, kind):
    import h5py

    path = tmp_path / "net.h5"
    path.write_bytes((files[0] / "net.h5").read_bytes())
    with h5py.File(path, "a") as file:
        if kind == "link":
            file["more"] = h5py.ExternalLink("/etc/passwd", "/")
        elif kind == "bomb":
            file.create_dataset("more", shape=(1 << 40,), dtype="f4", chunks=(1024,))
        elif kind == "external":
            file.create_dataset("more", shape=(4,), dtype="f4", external=[("/etc/hostname", 0, 16)])
        else:
            file.create_dataset("more", data=["a"], dtype=h5py.string_dtype())
    with pytest.raises(Refused):
        keras_file.check(path)


def test_weights_alone_and_other_files_are_told_apart(keras, files, tmp_path):
    files[1].save_weights(tmp_path / "net.weights.h5")
    with pytest.raises(JobError, match="no architecture"):
        keras_file.check(tmp_path / "net.weights.h5")
    for name, data in {"text.h5": b"hello", "cut.keras": (files[0] / "net.keras").read_bytes()[:5000]}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(JobError, match="no whole Keras file"):
            keras_file.check(tmp_path / name)


def test_a_configuration_that_is_too_deep_is_refused(files, changed, tmp_path):
    def deep(config):
        inner = config["config"]
        for _ in range(keras_file.MAX_DEPTH + 1):
            inner["config"] = inner = {}

    path = changed(files[0] / "net.keras", tmp_path / "net.keras", deep)
    with pytest.raises(Refused, match="nested too deeply"):
        keras_file.check(path)
