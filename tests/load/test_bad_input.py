"""Bad input, from the file to the message: cause, place, next step and exit code, as a user meets them."""

import pytest

from haversack.base.errors import HaversackError
from haversack.load import export, open_job

# What is wrong | old text | new text | exit code | what the message must hold
JOBS = [
    (
        "a model in training mode",
        "return Net().eval()",
        "return Net()",
        2,
        ["in training mode: Net, conv, norm, head", "model.eval()"],
    ),
    (
        "one layer in training mode",
        "return Net().eval()",
        "net = Net().eval()\n    net.norm.train()\n    return net",
        2,
        ["in training mode: norm", "model.eval()"],
    ),
    (
        "NaN in weights",
        "return Net().eval()",
        "net = Net().eval()\n    net.head.bias.data[2] = float('nan')\n    return net",
        2,
        ["1 weight is not finite", "head.bias: 1 of 5 values"],
    ),
    (
        "a model that is none",
        "return Net().eval()",
        "return Net().eval().state_dict()",
        2,
        ["returned a OrderedDict, not an nn.Module", "return the module itself"],
    ),
    (
        "a model that cannot be built",
        "nn.Linear(4, 5)",
        "nn.Linear(4, '5')",
        2,
        ["model() raised TypeError", "job.py:12", "self.head = nn.Linear"],
    ),
    (
        "layers that do not fit",
        "nn.Linear(4, 5)",
        "nn.Linear(9, 5)",
        2,
        ["the model does not take a batch", "head (", "running it in PyTorch"],
    ),
    (
        "an iterator with the wrong shape",
        "size=(4, 3, 8, 8)",
        "size=(4, 8, 8, 3)",
        2,
        ["the model does not take a batch", "conv (", "float32[2, 8, 8, 3]"],
    ),
    (
        "an iterator with the wrong dtype",
        ".astype(np.float32),)",
        ",)",
        2,
        ["float64[2, 3, 8, 8]", "array.astype(np.float32)"],
    ),
    (
        "images in bytes",
        ".astype(np.float32),)",
        ".astype(np.uint8),)",
        2,
        ["uint8[2, 3, 8, 8]", "mend calibration()"],
    ),
    (
        "an iterator of arrays instead of tuples",
        ".astype(np.float32),)",
        ".astype(np.float32))",
        2,
        ["is an array, not a tuple", "yield (x,), with the comma"],
    ),
    (
        "NaN in the data",
        ".astype(np.float32),)",
        ".astype(np.float32) * np.nan,)",
        2,
        ["768 of 768 values are NaN or infinite"],
    ),
    ("no calibration", "range(2)", "range(0)", 2, ["calibration() gave no batch", "yield at least one"]),
    (
        "an iterator that raises",
        "for seed in range(2):",
        "for seed in open('nothing.txt'):",
        2,
        ["calibration() raised FileNotFoundError", "job.py:24", "open('nothing.txt')"],
    ),
    (
        "too many inputs",
        "yield (np.random.default_rng(seed)",
        "yield (np.zeros((4, 1)), np.random.default_rng(seed)",
        2,
        ["forward(image) takes 1 input, a batch of calibration() has 2"],
    ),
    (
        "control flow on data",
        "        return self.head",
        "        if image.max() > 100:\n            return image\n        return self.head",
        4,
        ["depends on the values of a tensor", "job.py:15", "if image.max() > 100:", "torch.where"],
    ),
    (
        "a batch length that is built in",
        ".mean((2, 3))",
        ".mean((2, 3)).view(4, 4)",
        4,
        ["takes a batch of 4, but none of 2", "job.py:15", "dims = {'image': {}}"],
    ),
    (
        "values that leave PyTorch",
        "torch.relu(",
        "torch.relu(float(image.max()) * ",
        4,
        ["Net (", "job.py:15"],
    ),
    (
        "dropout that always trains",
        "torch.relu(",
        "nn.functional.dropout(",
        2,
        ["computes in training mode", "dropout", "training=self.training"],
    ),
]


@pytest.mark.parametrize("old, new, code, told", [job[1:] for job in JOBS], ids=[job[0] for job in JOBS])
def test_a_bad_job_is_told(job_file, capfd, old, new, code, told):
    with pytest.raises(HaversackError) as error:
        export(open_job(str(job_file((old, new)))))
    text = str(error.value)
    assert error.value.exit_code == code, text
    assert not [piece for piece in told if piece not in text], text
    assert error.value.where
    assert capfd.readouterr().out == ""


def test_a_tuple_too_few_is_a_warning_of_nobody_but_an_error_of_ours(job_file):
    path = job_file(("yield (np.random", "yield list((np.random"), (".astype(np.float32),)", ".astype(np.float32),))"))
    assert export(open_job(str(path))).inputs[0].name == "image", "a list of arrays is a batch as well"


def test_nothing_is_written_beside_the_job(job_file, tmp_path):
    export(open_job(str(job_file())))
    assert [path.name for path in tmp_path.iterdir()] == ["job.py"]


def test_two_jobs_with_the_same_names_do_not_mix(job_file):
    first = open_job(str(job_file(name="a/job.py")))
    second = open_job(str(job_file(("nn.Linear(4, 5)", "nn.Linear(4, 7)"), name="b/job.py")))
    assert export(first).outputs[0].spec.shape == ("batch", 5)
    assert export(second).outputs[0].spec.shape == ("batch", 7)
    assert (first.name, second.name) == ("a", "b")


def test_a_comment_changes_nothing_of_the_model(job_file):
    plain = export(open_job(str(job_file())))
    noted = export(open_job(str(job_file(("class Net", "# a note\nclass Net")))))
    assert plain.digest == noted.digest
    other = export(open_job(str(job_file(("manual_seed(0)", "manual_seed(1)")))))
    assert other.digest != plain.digest
