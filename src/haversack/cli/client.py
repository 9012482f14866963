"""``haversack client``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from haversack.base.errors import EXIT_REFUSED
from haversack.cli.homes import HOME, again, homed, leading_on
from haversack.cli.terminal import clock, display, results, say, say_json

if TYPE_CHECKING:
    from haversack.deliver.update import Device, Outcome
    from haversack.flow.client import Client


def client(
    task: Literal["update", "status", "rollback", "retry", "enrol", "key"],
    name: str | None = None,
    *,
    line: str | None = None,
    repository: str | None = None,
    home: Path = HOME,
    root: Path | None = None,
    when: str = "",
    within: float | None = None,
    most: str = "",
    quota: str = "",
    json: bool = False,
) -> int:
    """Bring a device's models up to date, go back to the release before, tell what is installed.

    Parameters
    ----------
    task:
        update or rollback a line; retry lets releases that were set aside be tried again; status tells what is
        installed; enrol makes this device's key, and key shows its public half.
    name:
        The model line; for enrol a name for the device.
    line:
        The model line, said with its name.
    repository:
        Where releases come from: https://…, or a folder. It is remembered.
    home:
        The folder of this device.
    root:
        The publisher's root metadata, 1.root.json: needed once.
    when:
        Update only if these hold: unmetered, charging, idle, one or several with commas.
    within:
        Seconds that an update may take on this line; else it waits for a better one.
    most:
        Bytes that an update may fetch, such as 20MB.
    quota:
        Bytes that files of models may take on this device, such as 500MB.
    json:
        Print JSON.
    """
    from haversack.flow.client import Client

    with results(as_json=json), display() as sink, leading_on(home):
        device = Client(home, repository, root, device=_device(home, when, within, most, quota), sink=sink)
        code, told, lines = _done(device, task, line, name, again(home))
    if json:
        say_json(told)
    for text in () if json else lines:
        say(homed(text, home))
    return code


def _done(
    device: Client, task: str, line: str | None, name: str | None, home: str
) -> tuple[int, dict[str, Any], list[str]]:
    """Return the exit code, and what is told: as data, and in lines."""
    if task == "status":
        state = device.status()
        return EXIT_REFUSED if state.damaged else 0, state.data(), state.lines(home)
    if task == "update":
        return 0, *_updated(device, _line(line, name, task), home)
    if task == "rollback":
        return 0, *_rolled_back(device, _line(line, name, task), home)
    if task == "retry":
        return 0, *_retried(device, _line(line, name, task), home)
    return 0, *_key(device, task, name)


def _updated(device: Client, line: str, home: str) -> tuple[dict[str, Any], list[str]]:
    from haversack.base.recipe import unstructure

    done = device.update(line)
    return unstructure(done), [*_words(done), *_next(done, home)]


def _rolled_back(device: Client, line: str, home: str) -> tuple[dict[str, Any], list[str]]:
    from haversack.deliver.slots import Slots

    slots = Slots(device.home.line(line))
    left = slots.pointer().current
    back = device.rollback(line)
    told = {"version": back.version, "sequence": back.sequence, "target": back.target}
    lines = [f"{line} {back.version} is in use"]
    if left is not None and slots.is_set_aside(left):  # a full disk may not have taken that
        lines.append(f"{left.version} is not installed again, unless you type haversack client retry {line}{home}")
    return told, lines


def _retried(device: Client, line: str, home: str) -> tuple[dict[str, Any], list[str]]:
    versions = device.retry(line)
    if not versions:
        return {"line": line, "versions": []}, [f"{line}: no release is set aside"]
    told = f"{line}: the next update may install {', '.join(versions)} again"
    return {"line": line, "versions": list(versions)}, [told, f"next: haversack client update {line}{home}"]


def _next(done: Outcome, home: str) -> list[str]:
    """Return the command that leads on from an update, where there is one."""
    if done.action == "quarantined":
        return [f"next: wait for a newer release, or haversack client retry {done.line}{home}    (tries it again)"]
    if done.action != "installed":
        return []
    if done.before is None:
        return [f"next: haversack run {done.line} INPUT{home}    (INPUT: .npy, .npz, .png or .jpg)"]
    return [f"the way back: haversack client rollback {done.line}{home}"]


def _words(done: Outcome) -> list[str]:
    if done.action != "installed" or done.installed is None:
        stays = f"{done.line} {done.installed.version} stays in use" if done.installed else f"{done.line}: none in use"
        return [f"{stays}: {done.reason}"]
    from haversack.base.counted import counted
    from haversack.base.release import DELTAS

    before = f" in place of {done.before.version}" if done.before else ""
    ways = ", ".join(f"{name} as {form}" for name, form in sorted(done.forms.items()) if form in DELTAS)
    told = [f"{done.line} {done.installed.version} is in use{before}, on {done.installed.target}"]
    told.append(f"{done.bytes} bytes travelled{f' ({ways})' if ways else ''}")
    ratio = f", {done.verdict.ratio:.2f} times the last model's" if done.verdict.ratio else ""
    vectors = counted(done.verdict.vectors, "golden vector")
    told.append(f"{vectors} answered, {done.verdict.median_ms:.3g} ms a call{ratio}")
    told.append(f"it took {clock(sum(done.seconds.values()))}")
    return told


def _key(device: Client, task: str, name: str | None) -> tuple[dict[str, Any], list[str]]:
    from haversack.base.errors import UsageError
    from haversack.tools.store import atomic
    from haversack.tools.trust import wrap

    private = device.home.device_key
    public = private.with_name(private.name + ".pub")
    if task == "enrol":
        made = device.enrol(name or "device")
        lines = [f"{private} is this device's key and stays here", f"give {public} to the publisher"]
    else:
        with atomic.told(private, "read the device's key", atomic.HOME):
            if not private.exists():
                raise UsageError("this device has no key", where=str(private), next_step="haversack client enrol")
            known = wrap.device_of(public.read_bytes()).name if public.exists() else name or "device"
        made = wrap.public_half(wrap.read_private(private), known)
        lines = [made.line().rstrip()]
    return {"id": made.id, "name": made.name, "public": made.line().rstrip(), "file": str(public)}, lines


def _line(line: str | None, name: str | None, task: str) -> str:
    from haversack.base.errors import UsageError

    if (line is None) == (name is None):
        cause = "no model line is named" if line is None else f"two model lines are named, {line} and {name}"
        raise UsageError(cause, where=f"client {task}", next_step=f"haversack client {task} --line digits")
    return line or name or ""


def _device(home: Path, when: str, within: float | None, most: str, quota: str) -> Device:
    from haversack.base.errors import UsageError
    from haversack.deliver.bandwidth import Allowed
    from haversack.deliver.home import Home
    from haversack.deliver.store import QUOTA
    from haversack.deliver.trial import ACCEPTED
    from haversack.deliver.update import Device
    from haversack.run.source import lacks

    conditions = tuple(word.strip() for word in when.split(",") if word.strip())
    if within is not None and not within >= 0:  # not a number is none either
        raise UsageError("it is no number of seconds", where=f"--within {within}", next_step="--within 60")
    fetched, held = _bytes("--most", most), _bytes("--quota", quota)
    runtimes = tuple(target for target in ACCEPTED if not lacks(target))
    return Device(
        Home.at(home),
        runtimes,
        quota=held or QUOTA,
        when=conditions,
        allowed=Allowed(within, fetched),
    )


def _bytes(flag: str, text: str) -> int | None:
    from haversack.base import budget
    from haversack.base.errors import UsageError

    if not text:
        return None
    try:
        return budget.parse(f"size={text.replace(',', ' ')}").size
    except UsageError as error:
        raise UsageError(f"{text!r} is no number of bytes", where=flag, next_step=f"{flag} 20MB") from error
