"""The user's code: its errors at its lines, its folder on the path, and nothing of ours hidden or swallowed."""

import logging
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from haversack.base.errors import EnvironmentFault, JobError, Refused
from haversack.load.blame import layer_of, line_of, place_of
from haversack.load.place import Place, nearest
from haversack.load.quiet import quiet
from haversack.load.user_code import UserCode, first_line, guarded, guarded_stream

HERE = Path(__file__).parent


class TestUserCode:
    def test_what_it_raises_becomes_a_job_error_with_its_cause(self):
        with pytest.raises(JobError) as error, UserCode("model()", HERE):
            raise ValueError("first line\nsecond line")
        assert error.value.cause == "model() raised ValueError: first line"
        assert f"{__file__}:" in error.value.where
        assert 'raise ValueError("first line' in error.value.where
        assert isinstance(error.value.__cause__, ValueError)

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, MemoryError, GeneratorExit, Refused])
    def test_what_is_not_the_users_fault_passes(self, kind):
        with pytest.raises(kind), UserCode("model()", HERE):
            raise kind("as it is")

    def test_our_own_errors_keep_their_words(self):
        with pytest.raises(JobError) as error, UserCode("model()", HERE):
            raise JobError("mine", where="here")
        assert (error.value.cause, error.value.where) == ("mine", "here")

    def test_the_folder_is_on_the_path_inside_only(self, tmp_path):
        before = list(sys.path)
        with UserCode("it", tmp_path):
            assert sys.path[0] == str(tmp_path)
        assert sys.path == before
        with pytest.raises(JobError), UserCode("it", tmp_path):
            raise OSError("broken")
        assert sys.path == before

    def test_a_folder_that_was_there_stays(self, tmp_path, monkeypatch):
        monkeypatch.syspath_prepend(str(tmp_path))
        with UserCode("it", tmp_path):
            pass
        assert str(tmp_path) in sys.path

    def test_what_the_user_adds_to_the_path_stays(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sys, "path", list(sys.path))
        with UserCode("it", tmp_path):
            sys.path.append("/somewhere/else")
        assert "/somewhere/else" in sys.path
        assert str(tmp_path) not in sys.path

    def test_leaving_the_program_says_how_not_to(self):
        with pytest.raises(JobError) as error, UserCode("it", HERE):
            sys.exit(2)
        assert "__main__" in error.value.next_step

    @pytest.mark.parametrize(
        "error, line", [(ValueError("a\nb"), "a"), (ValueError("\n\n  b "), "b"), (ValueError(), "(no text)")]
    )
    def test_the_first_line_that_says_something(self, error, line):
        assert first_line(error) == line

    @pytest.mark.parametrize(
        "text, line",
        [
            ("it fails:", "it fails:"),
            ("it fails:\n\t\n", "it fails:"),
            ("it fails:\n\n\tone\n\ttwo", "it fails: one two"),
            ("it fails:\none\ntwo\nthree\nfour", "it fails: one two three …"),
            ("it fails:\n" + "x" * 200, "it fails: " + "x" * 200),
            ("it fails:\n" + "x" * 5000 + "\none", "it fails: " + "x" * 200 + " … one"),
        ],
    )
    def test_a_line_that_ends_in_a_colon_stands_with_those_behind_it(self, text, line):
        assert first_line(ValueError(text)) == line

    def test_weights_of_another_network_are_told_by_their_names(self):
        with pytest.raises(JobError) as error, UserCode("model()", HERE):
            nn.Linear(3, 2).load_state_dict({"weigth": torch.zeros(2, 3), "bias": torch.zeros(4)})
        cause = error.value.cause
        assert cause.startswith("model() raised RuntimeError: Error(s) in loading state_dict for Linear: ")
        assert 'Missing key(s) in state_dict: "weight"' in cause
        assert 'Unexpected key(s) in state_dict: "weigth"' in cause
        assert "size mismatch for bias" in cause
        assert "\n" not in cause

    def test_a_file_in_no_folder_is_told_with_the_nearest_one_that_is_there(self, tmp_path):
        (tmp_path / "my weights").mkdir()
        for name, there, why in (
            ("my weights/w.pt", "my weights", "it was looked for there"),
            ("my weights/a/b/w.pt", "my weights", f"there is no folder {tmp_path}/my weights/a/b"),
        ):
            with pytest.raises(JobError) as error, UserCode("model()", HERE):
                (tmp_path / name).read_bytes()
            assert error.value.next_step == f"ls {str(tmp_path / there)!r}    ({why})"


class TestGuarded:
    def test_a_value_passes(self):
        assert guarded(lambda: 3, "model", HERE)() == 3

    def test_the_name_is_told(self):
        with pytest.raises(JobError, match=r"^.*model\(\) raised ZeroDivisionError"):
            guarded(lambda: 1 / 0, "model", HERE)()

    def test_a_stream_starts_anew_and_is_lazy(self):
        asked = []

        def numbers():
            for number in range(3):
                asked.append(number)
                yield number

        stream = guarded_stream(numbers, "calibration", HERE)
        walk = stream()
        assert not asked
        assert next(walk) == 0
        assert asked == [0]
        assert list(stream()) == [0, 1, 2]

    def test_lists_and_iterators_are_streams(self):
        assert list(guarded_stream(lambda: [1, 2], "calibration", HERE)()) == [1, 2]
        assert list(guarded_stream(lambda: iter("ab"), "calibration", HERE)()) == ["a", "b"]
        assert list(guarded_stream(list, "calibration", HERE)()) == []

    def test_none_may_be_an_item(self):
        assert list(guarded_stream(lambda: [None, None], "calibration", HERE)()) == [None, None]

    def test_breaking_off_closes_the_users_generator(self):
        closed = []

        def numbers():
            try:
                yield 1
                yield 2
            finally:
                closed.append(True)

        walk = guarded_stream(numbers, "calibration", HERE)()
        next(walk)
        walk.close()
        del walk
        assert closed == [True]


class Breaks(nn.Module):
    def forward(self, x):
        return x @ torch.zeros(7, 2)


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([nn.ReLU(), Breaks()])

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


class TestBlame:
    @pytest.fixture
    def failed(self):
        module = Outer()
        with pytest.raises(RuntimeError) as error:
            module(torch.zeros(1, 3))
        return module, error.value

    def test_the_innermost_submodule(self, failed):
        module, error = failed
        assert layer_of(error.__traceback__, module) == "blocks.1"
        assert layer_of(error.__traceback__, nn.ReLU()) == "", "another model has no part in it"
        assert layer_of(None, module) == ""

    def test_the_users_line_not_torchs(self, failed):
        assert line_of(failed[1].__traceback__).endswith("return x @ torch.zeros(7, 2)")
        assert line_of(None) == ""

    def test_both(self, failed):
        module, error = failed
        assert place_of(error, module).startswith(f"blocks.1 ({__file__}:")

    def test_the_root_has_its_class_name(self):
        module = Breaks()
        with pytest.raises(RuntimeError) as error:
            module(torch.zeros(1, 3))
        assert place_of(error.value, module).startswith("Breaks (")
        assert place_of(RuntimeError("nowhere"), module) == "Breaks"

    def test_a_layer_of_torch_itself(self):
        module = nn.Sequential(nn.ReLU(), nn.Linear(3, 2))
        with pytest.raises(RuntimeError) as error:
            module(torch.zeros(1, 4))
        assert layer_of(error.value.__traceback__, module) == "1"


class TestQuiet:
    def test_warnings_logs_and_prints_stay_inside(self, capfd, recwarn, caplog):
        with quiet():
            warnings.warn("deprecated", stacklevel=1)
            logging.getLogger("torch.export").warning("long story")
            sys.stdout.write("def forward(self)")
            sys.stderr.write("W1123")
        assert capfd.readouterr() == ("", "")
        assert not recwarn.list
        assert not caplog.records

    def test_everything_is_as_before_afterwards(self, caplog):
        streams, level = (sys.stdout, sys.stderr), logging.root.manager.disable
        with pytest.raises(ValueError, match="out"), quiet():
            raise ValueError("out")
        assert (sys.stdout, sys.stderr) == streams
        assert logging.root.manager.disable == level
        with caplog.at_level(logging.WARNING):
            logging.getLogger("torch.export").warning("told again")
        assert "told again" in caplog.text
        with pytest.warns(UserWarning, match="told again"):
            warnings.warn("told again", stacklevel=1)


class TestPlace:
    def test_a_function_by_name(self):
        place = Place("job.py", HERE, {"build": lambda: 5, "_hidden": 1, "size": 3})
        assert place.function("build")() == 5
        with pytest.raises(JobError, match="has no 'biuld'; did you mean build"):
            place.function("biuld")
        with pytest.raises(JobError, match="size is a int, not a callable"):
            place.function("size")

    @pytest.mark.parametrize(
        "name, hint", [("calibraton", "; did you mean calibration?"), ("x", ""), ("_secret", ""), ("calibration", "")]
    )
    def test_the_nearest_public_name(self, name, hint):
        assert nearest(name, {"calibration": 1, "_secret_": 2}) == hint


class TestNextStep:
    @pytest.mark.parametrize(
        "what, code",
        [
            ("model()", "import job; job.model()"),
            ("calibration()", "import job; list(job.calibration())"),
            ("evaluation()", "import job; list(job.evaluation())"),
            ("it", "import job"),
        ],
    )
    def test_whatever_is_raised_a_command_shows_the_whole_traceback(self, tmp_path, what, code):
        (tmp_path / "job.py").write_text("def model():\n    raise ValueError('no weights')\ncalibration = model\n")
        names = {"__file__": str(tmp_path / "job.py")}
        exec(compile((tmp_path / "job.py").read_text(), names["__file__"], "exec"), names)
        with pytest.raises(JobError) as error, UserCode(what, tmp_path):
            names["model"]()
        assert error.value.next_step.startswith(f"cd {tmp_path} && python -c '{code}'")

    def test_it_says_what_to_do_where_no_file_is_known(self, tmp_path):
        with pytest.raises(JobError) as error, UserCode("model()", tmp_path):
            raise ValueError("elsewhere")
        assert "whole traceback" in error.value.next_step

    def test_a_name_that_is_missing_keeps_its_own_advice(self, tmp_path):
        with pytest.raises(EnvironmentFault) as error, UserCode("it", tmp_path):
            raise ModuleNotFoundError("no", name="absent")
        assert error.value.next_step.startswith("install the package absent")
        assert error.value.exit_code == 6

    @pytest.mark.parametrize(
        ("name", "distribution"),
        [("sklearn", "scikit-learn"), ("PIL", "pillow"), ("cv2", "opencv-python"), ("yaml", "pyyaml")],
    )
    def test_a_package_is_named_as_it_is_installed(self, tmp_path, name, distribution):
        with pytest.raises(EnvironmentFault) as error, UserCode("it", tmp_path):
            raise ModuleNotFoundError("no", name=name)
        assert (
            error.value.next_step == f"install the package {distribution}, or put the module {name} beside the job file"
        )

    def test_a_module_that_a_package_does_not_have_is_the_jobs_fault(self, tmp_path):
        with pytest.raises(JobError) as error, UserCode("it", tmp_path):
            raise ModuleNotFoundError("no", name="numpy.absent")
        assert error.value.next_step == "look at the import: numpy is there, and has no module numpy.absent"
