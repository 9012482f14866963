"""What ``make demo`` shows, run whole on a copy of the examples: a step that does something else ends it with 1."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
pytestmark = pytest.mark.timeout(900)
NEEDED = ("digits.py", "digits_tuned.py", "ship_digits.py", "training.py")


def copied(folder):
    (folder / "examples").mkdir(parents=True)
    for name in NEEDED:
        shutil.copy(EXAMPLES / name, folder / "examples" / name)
    return folder / "examples"


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    return copied(tmp_path_factory.mktemp("demo"))


def run(path, environment):
    return subprocess.run([sys.executable, str(path)], capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def shown(examples, environment):
    """What the second half shows, of a network that the first half trained and packed."""
    packed = run(examples / "digits.py", environment)
    assert packed.returncode == 0, packed.stderr
    done = run(examples / "ship_digits.py", environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def commands(shown):
    """Each command that was shown, with its answer, in order."""
    parts = re.split(r"^\$ ", shown, flags=re.MULTILINE)[1:]
    return [tuple(part.partition("\n")[::2]) for part in parts]


def answers(commands, begin):
    return [answer for command, answer in commands if command.startswith(begin)]


def test_every_verb_is_shown_as_it_is_typed(commands):
    verbs = [" ".join(command.split()[1:3]) for command, _ in commands if command.startswith("haversack client")]
    assert verbs.count("client update") == 6
    assert verbs.count("client rollback") == verbs.count("client status") == 1
    assert len(answers(commands, "haversack publish")) == 4
    assert [command for command, _ in commands if command.startswith("python -m http.server")]


def test_the_update_is_a_delta_and_small(commands):
    first, stolen, second, *_ = answers(commands, "haversack client update")
    assert "sha256" in stolen
    travelled = [int(re.search(r"(\d+) bytes travelled", answer)[1]) for answer in (first, second)]
    assert travelled[1] < 0.6 * travelled[0]


def test_the_device_answers_after_every_step(commands):
    said = [
        re.search(r"  (\w+)  [\d.]+\n  digits ([\d.]+) ", answer).groups()
        for answer in answers(commands, "haversack run")
    ]
    assert said == [
        ("seven", "1.0.0"), ("seven", "1.0.0"), ("seven", "1.1.0"), ("seven", "1.1.0"), ("eight", "1.3.0"),
        ("seven", "1.1.0"),
    ]  # fmt: skip


def test_what_was_bad_is_set_aside(commands, examples):
    assert "quarantined 1.2.0" in answers(commands, "haversack client status")[0]
    assert "1.3.0 is set aside here: rolled back by hand" in answers(commands, "haversack client update")[-1]
    shop = examples.parent / "build" / "digits" / "shop"
    assert sorted(path.name for path in shop.glob("*.haversack")) == [
        f"digits-1.{minor}.0.haversack" for minor in range(4)
    ]


def test_a_demo_that_does_not_do_what_it_says_ends_with_code_1(tmp_path, environment):
    done = run(copied(tmp_path) / "ship_digits.py", environment)
    assert done.returncode == 1
    assert "$ haversack bundle ../out --out digits-1.0.0.haversack" in done.stdout
    assert "the demo stops: it ended with exit code 2, not 0" in done.stderr
