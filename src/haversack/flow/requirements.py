"""What an installation needs, by extra, and what of it is there: names and versions only, nothing is imported."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Literal

from haversack.base.errors import ConversionError, EnvironmentFault, Fault, MissingExtra
from haversack.base.versions import fits, installed
from haversack.targets.contract import Target

CORE = "core"
PROJECT = "haversack"
_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?P<limits>[^;]*)(;(?P<marker>.*))?")
_EXTRA = re.compile(r"extra\s*==\s*[\"'](?P<extra>[^\"']+)[\"']")
State = Literal["installed", "missing", "wrong version"]


@dataclass(frozen=True)
class Package:
    """One requirement: of which extra, which versions are wanted, which is there (empty when missing)."""

    name: str
    extra: str
    wanted: str
    found: str

    @property
    def state(self) -> State:
        """Whether it is there, in a version that is wanted."""
        if not self.found:
            return "missing"
        return "installed" if fits(self.found, self.wanted) else "wrong version"


def packages() -> tuple[Package, ...]:
    """Return every requirement of every extra, core first; of the source tree when it is not installed.

    Returns an empty tuple when neither an installation nor a pyproject.toml tells them.
    """
    try:
        told = requires(PROJECT) or []
    except PackageNotFoundError:
        told = _of_tree(Path(__file__).resolve().parents[3] / "pyproject.toml")
    found = [parsed(line) for line in told]
    return tuple(sorted(found, key=lambda one: (one.extra != CORE, one.extra, one.name)))


def demand(extra: str, *, purpose: str) -> None:
    """Make sure that every package of an extra is installed, before anything slow begins.

    Raises:
        MissingExtra: names all that are missing, and the command that adds them.
    """
    missing = [one.name for one in packages() if one.extra == extra and one.state == "missing"]
    if missing:
        raise MissingExtra(", ".join(missing), extra, purpose=purpose)


def demand_runtimes(targets: Mapping[str, Target]) -> None:
    """Make sure that what each target writes with is installed, in a version that was verified.

    Args:
        targets: those asked for, by name.

    Raises:
        EnvironmentFault: a package is missing; all are named, with the command that adds them.
        ConversionError: one has a version that was not verified, into whose files no parameters are put.
    """
    missing = [
        Fault(f"--target {name}", f"{package} is not installed")
        for name, part in targets.items()
        for package in part.packages
        if not installed(package)
    ]
    if missing:
        lacking = dict.fromkeys(package for part in targets.values() for package in part.packages)
        extras = {one.name: one.extra for one in packages() if one.extra not in (CORE, "dev")}
        asked = dict.fromkeys(
            f"'{PROJECT}[{extras[name]}]'" if name in extras else name for name in lacking if not installed(name)
        )
        raise EnvironmentFault(
            "a runtime that was asked for cannot be written",
            faults=tuple(missing),
            tried="looking for its packages, before anything is exported",
            next_step=f"pip install {' '.join(asked)}",
        )
    other = {name: found for name, part in targets.items() if (found := part.unverified())}
    if other:
        asked = dict.fromkeys(
            f"'{one.where}{targets[name].verified[one.where]}'" for name in other for one in other[name]
        )
        raise ConversionError(
            "no parameters are put into files by a version that was not verified",
            faults=tuple(Fault(f"--target {name}", str(one)) for name, found in other.items() for one in found),
            tried="looking at versions, before anything is exported",
            next_step=f"pip install {' '.join(asked)}",
        )


def parsed(line: str) -> Package:
    """Return a requirement as ``importlib.metadata`` writes it: ``onnx>=1.23; extra == "pack"``.

    Raises:
        ValueError: it is none.
    """
    match = _REQUIREMENT.fullmatch(line.strip())
    if match is None:
        message = f"not a requirement: {line!r}"
        raise ValueError(message)
    extra = _EXTRA.search(match["marker"] or "")
    name = match["name"]
    return Package(name, extra["extra"] if extra else CORE, match["limits"].strip(), installed(name))


def commands(needed: Iterable[Package]) -> Mapping[str, str]:
    """Return extra -> the pip command that adds what is missing or wrong in it."""
    wrong = [one for one in needed if one.state != "installed"]
    return {
        extra: f"pip install '{PROJECT}{'' if extra == CORE else f'[{extra}]'}'"
        for extra in dict.fromkeys(one.extra for one in wrong)
    }


def _of_tree(path: Path) -> list[str]:
    if not path.is_file():
        return []
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    extras: Mapping[str, list[str]] = project.get("optional-dependencies", {})
    return [*project["dependencies"], *(_of_extra(one, name) for name, ones in extras.items() for one in ones)]


def _of_extra(line: str, extra: str) -> str:
    """Return a requirement of an extra, written as an installed package has it."""
    wanted, _, machines = line.partition(";")
    return f'{wanted}; ({machines.strip()}) and extra == "{extra}"' if machines else f'{wanted}; extra == "{extra}"'
