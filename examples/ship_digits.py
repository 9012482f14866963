"""From a packed network to a device, and back from bad releases: ``python examples/ship_digits.py``.

``make demo`` ends so. It begins with what ``digits.py`` left in ``build/digits/out``. Every command is shown as it is
typed in the folder ``build/digits/shop``, with its answer; one that does not do what is said here ends the demo with
exit code 1.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from digits import BUDGET, OUT, evaluation

JOB = "../../../examples/digits_tuned.py"
SHOP = OUT.with_name("shop")
MODEL = "onnxruntime.onnx"
SHOWN = 7
"""The digit that the device is shown."""
SECTOR = 4096
"""Bytes that a bad disk spoils."""


class Unlike(Exception):
    """A command did something else than is said here."""


def say(text: str) -> None:
    """Say what comes next."""
    print(f"\n# {text}", flush=True)


def typed(command: str, *, code: int = 0, answers: str = "") -> None:
    """Type a command in the shop, show it and its answer.

    Args:
        command: as it is typed.
        code: what it must end with.
        answers: what its answer must hold, a pattern.

    Raises:
        Unlike: it ended or answered otherwise.
    """
    print(f"$ {command}", flush=True)
    words = [sys.executable, "-m", "haversack.cli", *shlex.split(command)[1:]]
    told = ""
    with subprocess.Popen(words, cwd=SHOP, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            told += line
            print(f"  {line}", end="", flush=True)
    if process.returncode != code:
        raise Unlike(f"it ended with exit code {process.returncode}, not {code}")
    if not re.search(answers, told):
        raise Unlike(f"its answer should say {answers!r}")


def publish(bundle: str, answers: str = "") -> None:
    """Publish a bundle."""
    typed(f"haversack publish {bundle} --line digits --repository site --keys keys", answers=answers)


def ask(answers: str) -> None:
    """Show the picture to the device, which must answer so."""
    typed("haversack run digits picture.npy --home device", answers=answers)


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder with Python's own server of plain files, and yield its address."""
    words = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(folder), "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            port = server.stdout.readline().split(" port ")[1].split()[0]
            print(f"$ python -m http.server --bind 127.0.0.1 --directory {folder.name} {port} &", flush=True)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def blobs() -> set[Path]:
    """Return what the repository holds of models."""
    return {path for path in (SHOP / "site" / "blobs").rglob("*") if path.is_file()}


@contextlib.contextmanager
def exchanged(paths: set[Path]) -> Iterator[None]:
    """Let a stranger change one bit of each file on the server, while the block lasts."""
    before = {path: path.read_bytes() for path in paths}
    for path, data in before.items():
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    yield
    for path, data in before.items():
        path.write_bytes(data)


def spoil(bundle: str, spoiled: str) -> None:
    """Copy a bundle with a block of zeros in its model, and every hash as if it belonged there."""
    from haversack.base import digest

    folder = SHOP / spoiled
    shutil.copytree(SHOP / bundle, folder)
    versions = [re.findall(r"-([\d.]+)\.", name)[0] for name in (bundle, spoiled)]
    news = {f'"version":"{versions[0]}"': f'"version":"{versions[1]}"'}
    for name in (MODEL, "onnxruntime.json", "manifest.json"):
        data = (folder / name).read_bytes()
        if name == MODEL:
            half = len(data) // 2
            new = data[:half] + bytes(SECTOR) + data[half + SECTOR :]
        else:
            new = re.sub("|".join(map(re.escape, news)), lambda found: news[found[0]], data.decode()).encode()
        (folder / name).write_bytes(new)
        news[digest.of_bytes(data)] = digest.of_bytes(new)


def first_release() -> None:
    """Bundle, sign and publish what was packed."""
    say("What was packed becomes a bundle: model, golden vectors, labels, where it comes from.")
    typed("haversack bundle ../out --out digits-1.0.0.haversack")
    say("The publisher makes keys, signs the bundle and puts it into a folder that anything may serve.")
    typed("haversack keys init keys")
    publish("digits-1.0.0.haversack")


def second_release() -> None:
    """Train the network a little further, and pack it by the same plan."""
    say("The network is trained a little further, on pictures with noise, and packed by the same plan.")
    typed(f"haversack resolve ../out --budget {BUDGET} --write plan.toml")
    typed(f"haversack pack {JOB} --plan plan.toml --budget {BUDGET} --allow slower-than-float --out tuned")
    typed("haversack bundle tuned --out digits-1.1.0.haversack")
    publish("digits-1.1.0.haversack", answers="a delta of")


def delivered(address: str) -> None:
    """Bring the first release to a device."""
    say("A device is given the publisher's root metadata, once, and fetches its first model.")
    typed(
        f"haversack client update digits --repository {address} --root keys/1.root.json --home device",
        answers="digits 1.0.0 is in use",
    )
    ask("seven .*\ndigits 1.0.0")


def updated(before: set[Path]) -> None:
    """Let the device refuse what a stranger changed, then take the update as a delta."""
    say("A stranger changes what the server holds of it. He has no keys: the device refuses, and goes on.")
    with exchanged(blobs() - before):
        typed("haversack client update digits --home device", code=7, answers="sha256")
        ask("digits 1.0.0")
    say("The server is mended. The device takes the update as a delta.")
    typed("haversack client update digits --home device", answers="digits 1.1.0 is in use.*\n.*as (hvd1|bsdiff)")
    ask("seven .*\ndigits 1.1.0")


def refused() -> None:
    """Publish a release that a bad disk spoiled; the device sets it aside."""
    say("A release whose model a bad disk spoiled before it was signed: its keys are right, its answers are not.")
    spoil("digits-1.1.0.haversack", "digits-1.2.0.haversack")
    publish("digits-1.2.0.haversack")
    typed("haversack client update digits --home device", code=5, answers="1.1.0 stays in use")
    typed("haversack client status --home device", answers="digits 1.1.0 .*\n(.*\n)*  quarantined 1.2.0")
    ask("seven .*\ndigits 1.1.0")


def rolled_back() -> None:
    """Publish a release that only a person can tell is wrong, and go back."""
    say("A release that nothing but a person can tell is wrong: somebody began to count the labels with one.")
    typed("haversack bundle tuned --labels labels.txt --out digits-1.3.0.haversack")
    publish("digits-1.3.0.haversack")
    typed("haversack client update digits --home device", answers="digits 1.3.0 is in use")
    ask("eight .*\ndigits 1.3.0")
    say("That was a seven. The device goes back, and does not take that release again.")
    typed("haversack client rollback digits --home device", answers="digits 1.1.0 is in use")
    ask("seven .*\ndigits 1.1.0")
    typed("haversack client update digits --home device", answers="digits 1.1.0 stays in use: 1.3.0")


def main() -> None:
    """Ship, update, refuse and roll back."""
    shutil.rmtree(SHOP, ignore_errors=True)
    SHOP.mkdir(parents=True)
    (pictures,), classes = next(iter(evaluation()))
    clear = np.flatnonzero(classes == SHOWN)[1]  # the first looks like a three
    np.save(SHOP / "picture.npy", pictures[clear])
    words = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    (SHOP / "labels.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    first_release()
    with served(SHOP / "site") as address:
        delivered(address)
        before = blobs()
        second_release()
        updated(before)
        refused()
        rolled_back()
    say(f"Shipped, updated by a delta, refused and rolled back; all of it is in {SHOP}")


if __name__ == "__main__":
    try:
        main()
    except Unlike as error:
        sys.exit(f"the demo stops: {error}")
