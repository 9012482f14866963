"""Job files and references: every way in which one can be wrong is told with its line, all faults at once."""

import sys

import numpy as np
import pytest

from haversack.base.errors import EnvironmentFault, JobError, Refused
from haversack.load import open_job
from haversack.load.opening import parse


def test_a_good_job_file_gives_everything(job_file):
    path = job_file(
        more="""
        baseline = 0.88
        input_names = ["image"]
        output_names = ("logits",)
        dims = {"image": {0: "batch"}}
        preprocess = [{"op": "normalise"}]
        def golden():
            return [(np.zeros((1, 3, 8, 8), np.float32),)]
        """
    )
    job = open_job(str(path))
    assert (job.baseline, job.metric, job.source) == (0.88, "top1", str(path))
    assert (job.input_names, job.output_names, job.dims) == (("image",), ("logits",), {"image": {0: "batch"}})
    assert job.preprocess == ({"op": "normalise"},)
    assert [batch[0].shape for batch in job.calibration()] == [(4, 3, 8, 8)] * 2
    assert [batch[0].shape for batch in job.calibration()] == [(4, 3, 8, 8)] * 2, "a second pass starts anew"
    assert len(list(job.golden())) == 1
    (inputs, expected), *_ = job.evaluation()
    assert inputs[0].shape[0] == len(expected) == 4
    assert type(job.model()).__name__ == "Net"


def test_labels_are_a_list_or_a_file_beside_the_job(job_file, tmp_path):
    assert open_job(str(job_file())).labels == ()
    assert open_job(str(job_file(more="labels = ['cat', 'dog']"))).labels == ("cat", "dog")
    (tmp_path / "names.txt").write_bytes("\ufeffcat\r\nKätzchen\r\n".encode())
    assert open_job(str(job_file(more="labels = 'names.txt'"))).labels == ("cat", "Kätzchen")
    (tmp_path / "names.txt").write_bytes(b"cat\n\ndog\n")
    with pytest.raises(JobError, match=r"labels: names.txt is no text with one label a line: label 2"):
        open_job(str(job_file(more="labels = 'names.txt'")))


def test_the_name_is_the_stem_or_the_folder(job_file, tmp_path):
    assert open_job(str(job_file())).name == tmp_path.name
    assert open_job(str(job_file(name="lite0.py"))).name == "lite0"


def test_neither_byte_code_nor_path_are_left(job_file, tmp_path, write):
    write("SIZE = 5", "sizes_of_net.py")
    before = list(sys.path)
    job = open_job(str(job_file(("import numpy as np", "import numpy as np\nfrom sizes_of_net import SIZE"))))
    assert job.metric == "top1"
    assert sys.path == before
    assert not list(tmp_path.glob("__pycache__/job*"))


def test_imports_inside_functions_find_the_folder(job_file, write):
    write("def build(net):\n    return net().eval()\n", "late_import.py")
    job = open_job(
        str(job_file(("    return Net().eval()", "    import late_import\n    return late_import.build(Net)")))
    )
    assert not job.model().training


@pytest.mark.parametrize(
    "text, where, cause",
    [
        ("x = (\n", "job.py:1", "never closed"),
        ("import numpy\n\ndef model(:\n    pass\n", "job.py:3", "def model(:"),
        ("def f():\n  x\n y\n", "job.py:3", "unindent"),
        ("ok = 1\nraise ValueError('no data here')\n", "job.py:2: raise ValueError", "ValueError: no data here"),
        ("def deep():\n    return 1 / 0\ndeep()\n", "job.py:2: return 1 / 0", "ZeroDivisionError"),
        ("import sys\nsys.exit(3)\n", "job.py:2", "SystemExit"),
    ],
)
def test_code_that_fails_is_told_at_its_line(write, text, where, cause):
    with pytest.raises(JobError) as error:
        open_job(str(write(text)))
    assert where in error.value.where
    assert cause in error.value.cause
    assert error.value.exit_code == 2


def test_a_missing_package_says_what_to_install(write):
    with pytest.raises(EnvironmentFault, match="install the package no_such_package_xyz") as error:
        open_job(str(write("import no_such_package_xyz")))
    assert "job.py:1" in error.value.where
    assert "no_such_package_xyz" in error.value.cause
    assert error.value.exit_code == 6


def test_the_line_is_the_users_even_when_a_library_raises(write):
    path = write("import numpy as np\n\nnp.zeros((2, 3)) @ np.zeros((2, 3))\nnp.linalg.inv(np.zeros((2, 3)))\n")
    with pytest.raises(JobError) as error:
        open_job(str(path))
    assert f"{path}:3" in error.value.where
    path = write("import numpy as np\nx = np.linalg.inv(np.zeros((2, 3)))\n")
    with pytest.raises(JobError) as error:
        open_job(str(path))
    assert f"{path}:2" in error.value.where, "not a line inside NumPy"


def test_a_helper_beside_the_job_file_is_the_users_too(write):
    write("def build():\n    raise KeyError('weights')\n", "helper_of_job.py")
    with pytest.raises(JobError) as error:
        open_job(str(write("import helper_of_job\nhelper_of_job.build()\n")))
    assert "helper_of_job.py:2" in error.value.where


def test_all_missing_names_at_once_with_the_nearest(write):
    with pytest.raises(JobError) as error:
        open_job(str(write("def calibraton(): pass\ndef evalution(): pass\n")))
    faults = {fault.where: fault.cause for fault in error.value.faults}
    assert set(faults) == {"model", "calibration", "evaluation", "metric"}
    assert "did you mean calibraton?" in faults["calibration"]
    assert "did you mean evalution?" in faults["evaluation"]
    assert "did you mean" not in faults["metric"]


def test_a_misspelt_optional_name_is_no_silent_loss(job_file):
    with pytest.raises(JobError, match=r"basline: looks like a misspelt baseline"):
        open_job(str(job_file(more="basline = 0.88")))
    assert open_job(str(job_file(more="_basline = 0.88\ndim = 3\nnames = ()"))).baseline is None


def test_what_a_metric_says_of_itself_is_not_read_beside_it(job_file):
    """It would be ignored, and every drop judged the wrong way."""
    error_of = "def metric(outputs, expected): return float(abs(outputs[0] - expected).mean())\n"
    with pytest.raises(JobError, match=r"direction: is not read here; .*from_callable\(metric, direction='lower'\)"):
        open_job(str(job_file(more=f"{error_of}direction = 'lower'")))
    for own in ("_direction = 'lower'", "direction = 3", "unit = None"):
        assert open_job(str(job_file(more=f"{error_of}{own}"))).metric is not None
    assert open_job(str(job_file(more="direction = 'lower'\nmetric = 'top1'"))).metric == "top1"


WRONG = [
    ("metric = 3", "metric"),
    ("metric = 'top11'", "did you mean top1?"),
    ("metric = lambda outputs: 0", "metric: is called with 2 arguments"),
    ("baseline = 'high'", "baseline: 'high' is no finite number"),
    ("baseline = True", "baseline: True is no finite number"),
    ("baseline = float('nan')", "baseline: nan is no finite number"),
    ("baseline = np.array([0.8, 0.9])", "baseline: array([0.8, 0.9]) is no finite number"),
    ("baseline = torch.ones(2)", "baseline: tensor([1., 1.]) is no finite number"),
    ("baseline = 10 ** 400", "is no finite number"),
    ("model = 3", "model: is a int, not a function"),
    ("calibration = [1, 2]", "calibration: is a list, not a function"),
    ("def evaluation(count): pass", "evaluation: is called without arguments"),
    ("golden = 7", "golden: is a int, not a function"),
    ("input_names = 'image'", "input_names: is no list of strings"),
    ("input_names = ['a', 'a']", "a stands there twice"),
    ("input_names = ['a:b']", "'a:b' is no name"),
    ("output_names = [3]", "output_names: is no list of strings"),
    ("dims = 3", "dims: is no mapping"),
    ("lengths = 128", "lengths: is no list of lengths"),
    ("lengths = (0, 128)", "lengths: is no list of lengths"),
    ("lengths = ('16',)", "lengths: is no list of lengths"),
    ("lengths = (16, 16)", "one twice"),
    ("lengths = range(1, 3)", "is no list of lengths"),
    ("lengths = tuple(range(1, 40))", "more than 16"),
    ("dims = {'x': {'0': 'batch'}}", "is no axis with a name"),
    ("dims = {'x': {0: 'no name'}}", "no name for a dimension"),
    ("layer_precisions = ['head=int8']", "layer_precisions: is no mapping of globs over module paths to precisions"),
    ("layer_precisions = {'head': 8}", "layer_precisions: is no mapping of globs"),
    ("without = 'w4a8'", "without: is no list of precisions and parts"),
    ("without = (4,)", "without: is no list of precisions and parts"),
    ("preprocess = {'op': 'x'}", "preprocess: is no list of mappings"),
    ("labels = np.arange(3)", "labels: is neither a list of strings nor the path of a text file; if it is your own"),
    ("labels = [0, 1]", "labels: is neither a list of strings"),
    ("labels = ('cat', '')", "labels: label 2: '' is no line"),
    ("labels = ['cat\\n']", "labels: label 1"),
    ("labels = 'nowhere.txt'", "labels: nowhere.txt cannot be read: No such file"),
    ("labels = '.'", "labels: . cannot be read: Is a directory"),
]


@pytest.mark.parametrize("line, told", WRONG)
def test_wrong_kinds(job_file, line, told):
    with pytest.raises(JobError) as error:
        open_job(str(job_file(more=line)))
    assert told in str(error.value)


def test_wrong_kinds_are_told_all_at_once(job_file):
    with pytest.raises(JobError) as error:
        open_job(str(job_file(more="metric = 3\nbaseline = 'x'\ninput_names = 'y'\nmodel = 5")))
    assert {fault.where for fault in error.value.faults} == {"metric", "baseline", "input_names", "model"}


def test_a_metric_may_be_a_callable_or_a_part_with_settings(job_file):
    from haversack.metrics.top1 import Top1

    job = open_job(str(job_file(more="metric = lambda outputs, expected: (outputs.argmax(1) == expected)")))
    assert callable(job.metric)
    job = open_job(str(job_file(more="from haversack.metrics.top1 import Top1\nmetric = Top1()")))
    assert isinstance(job.metric, Top1)


def test_optional_names_may_be_none(job_file):
    job = open_job(str(job_file(more="baseline = None\ngolden = None\ndims = None\npreprocess = None")))
    assert (job.baseline, job.golden, job.dims, job.preprocess) == (None, None, {}, ())
    assert open_job(str(job_file(more="baseline = np.float64(.5)"))).baseline == 0.5


def test_functions_that_raise_later_are_told_at_their_line(job_file):
    path = job_file(("    return Net().eval()", "    return Net(3).eval()"))
    with pytest.raises(JobError) as error:
        open_job(str(path)).model()
    assert "return Net(3).eval()" in error.value.where
    path = job_file(("for seed in range(2):", "for seed in (1, 2, None.x):"))
    with pytest.raises(JobError, match=r"calibration\(\) raised AttributeError"):
        list(open_job(str(path)).calibration())


def test_an_iterator_that_breaks_midway_gives_what_came_before(job_file):
    path = job_file(more="def calibration():\n    yield (np.ones((2, 3)),)\n    raise OSError('disk gone')\n")
    stream = open_job(str(path)).calibration()
    assert np.array_equal(next(stream)[0], np.ones((2, 3)))
    with pytest.raises(JobError, match="OSError: disk gone") as error:
        next(stream)
    assert "raise OSError" in error.value.where


def test_something_that_cannot_be_iterated(job_file):
    with pytest.raises(JobError, match="returned int, which cannot be iterated"):
        next(open_job(str(job_file(more="def calibration(): return 3"))).calibration())


def test_an_interrupt_is_no_fault_of_the_job(write):
    with pytest.raises(KeyboardInterrupt):
        open_job(str(write("raise KeyboardInterrupt")))


@pytest.mark.parametrize(
    "make, told",
    [
        (lambda p: None, "there is no such job file"),
        (lambda p: p.mkdir(), "cannot be read"),
        (lambda p: p.write_bytes(b"\xff\xfe\x00x"), "no UTF-8 text"),
        (lambda p: p.write_bytes(b"x = 1\0"), "null bytes"),
        (lambda p: p.write_bytes(b"#" * (5 << 20)), "larger than 4 MiB"),
    ],
)
def test_files_that_are_no_job_files(tmp_path, make, told):
    path = tmp_path / "job.py"
    make(path)
    with pytest.raises(JobError, match=told):
        open_job(str(path))


class TestReference:
    @pytest.fixture
    def package(self, job_file, write, monkeypatch, tmp_path, request):
        name = f"pkg_{abs(hash(request.node.name))}"
        write("", f"{name}/__init__.py")
        job_file(name=f"{name}/jobs.py")
        monkeypatch.chdir(tmp_path)
        yield name
        for loaded in [loaded for loaded in sys.modules if loaded.startswith(name)]:
            del sys.modules[loaded]

    def test_a_callable_of_a_module_and_the_rest_from_its_names(self, package):
        job = open_job(f"{package}.jobs:Net")
        assert type(job.model()).__name__ == "Net"
        assert job.metric == "top1"
        assert job.name == "jobs"
        assert open_job(f"{package}.jobs").model().training is False

    def test_no_such_module_attribute_or_package(self, package):
        with pytest.raises(JobError, match="did you mean Net"):
            open_job(f"{package}.jobs:Nett")
        with pytest.raises(JobError, match=f"there is no module {package}.job\n") as error:
            open_job(f"{package}.job:Net")
        assert "on the path" in error.value.tried
        with pytest.raises(JobError, match="there is no module no_such_thing"):
            open_job("no_such_thing.at_all:Net")

    def test_a_module_that_fails(self, package, write):
        write("x = 1\nraise OSError('gone')", f"{package}/bad.py")
        with pytest.raises(JobError, match="OSError: gone") as error:
            open_job(f"{package}.bad:Net")
        assert "bad.py:2" in error.value.where
        write("x = = 1\n", f"{package}/worse.py")
        with pytest.raises(JobError, match="invalid syntax: x = = 1") as error:
            open_job(f"{package}.worse:Net")
        assert "worse.py:1" in error.value.where
        write("import no_such_package_xyz", f"{package}/lacks.py")
        with pytest.raises(EnvironmentFault, match="install the package no_such_package_xyz"):
            open_job(f"{package}.lacks:Net")


def test_a_job_file_with_another_callable(job_file):
    job = open_job(f"{job_file()}:Net")
    assert type(job.model()).__name__ == "Net"


@pytest.mark.parametrize(
    "source, parts",
    [
        ("job.py", (None, "job.py", "")),
        ("a/b/job.py:build", (None, "a/b/job.py", "build")),
        ("package.module:Net", (None, "package.module", "Net")),
        ("w.safetensors@package.module:Net", ("w.safetensors", "package.module", "Net")),
        ("a@b/w.pt2@job.py", ("a@b/w.pt2", "job.py", "")),
        ("w.pth@job.py:Net", ("w.pth", "job.py", "Net")),
        ("w.PT2", ("w.PT2", "", "")),
        ("w.safetensors@:Net", ("w.safetensors", "", "Net")),
    ],
)
def test_how_a_source_is_taken_apart(source, parts):
    found = parse(source)
    assert (found.weights and str(found.weights), found.place, found.name) == parts


@pytest.mark.parametrize("source", ["", "model.tflite", "a b", "x.txt@job.py", "pkg:", "pkg:a.b", "job.py:3", "../up"])
def test_what_is_no_source(source):
    with pytest.raises(JobError) as error:
        open_job(source)
    assert "job.py" in error.value.next_step or "job" in str(error.value)


def test_a_folder_is_no_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path.parent)
    with pytest.raises(JobError, match="it is a folder"):
        open_job(f"./{tmp_path.name}")


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.bin", "w.pkl", "w.ckpt"])
def test_a_pickle_is_refused_before_it_is_read(tmp_path, job_file, name):
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(Refused) as error:
        open_job(f"{tmp_path / name}@{job_file()}:Net")
    assert error.value.exit_code == 7
    assert "--allow-pickle" in error.value.next_step
    with pytest.raises(Refused):
        open_job(str(job_file(more=f'model = "{name}@:Net"')))
