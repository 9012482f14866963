"""New keys in place of old ones: a new root, which two of the three root keys sign, or a new delegation of a line.

What the new key is for is signed with it before the root that names it is written, and with the old one as well:
clients that read meanwhile know one of the two.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from haversack.base.errors import EnvironmentFault, UsageError
from haversack.deliver.metadata import LIVES, OWNER, owned, stamp
from haversack.deliver.repository import Repository, State, check_enough, delegated
from haversack.tools.store import atomic
from haversack.tools.trust.keys import ROOTS, TOP, RoleKey, check_role

if TYPE_CHECKING:
    from tuf.api.metadata import Root, Targets

LAST = "x-haversack-last"
"""A field of our own in ``targets``: line -> the highest sequence of a line that is trusted no more."""
_ROTATE = "haversack keys rotate KEYS --role ROLE --repository …"


@dataclass(frozen=True)
class Rotation:
    """What was done.

    Attributes:
        role: whose key it was.
        new: the file of the new key; None where a line is trusted no more.
        old: the files of the keys that count no more, as they are called now.
        root_version: of the newest root; ``KEYS/N.root.json`` is what new devices are given.
        was_root: whether that root is new.
    """

    role: str
    new: Path | None
    old: tuple[Path, ...]
    root_version: int
    was_root: bool


def rotate(repository: Repository, role: str) -> Rotation:
    """Make a new key for a role and let the repository trust it in place of the old one.

    Raises:
        UsageError: no such role, or keys that must sign are missing.
        Refused: as ``Repository.state``.
        EnvironmentFault: it cannot be written, or somebody else published meanwhile.
    """
    check_role(role)
    state = repository.state()
    if role in (*ROOTS, *TOP):
        return _rotate_top(repository, state, role)
    return _rotate_line(repository, state, role)


def revoke(repository: Repository, role: str) -> Rotation:
    """Trust a role's key no more. A line is withdrawn with all its releases; other roles get a new key at once.

    Key files get the ending ``.revoked``. A line comes back with its next release, with a new key and above the highest
    sequence that it had.

    Raises:
        UsageError, Refused, EnvironmentFault: as ``rotate``.
    """
    check_role(role)
    if role in (*ROOTS, *TOP):
        done = rotate(repository, role)
        aside = {key.path for key in repository.keys.of(role)}
        repository.keys.without([key.id for key in repository.keys.of(role)])
        return replace(done, old=tuple(path.with_name(f"{path.name}.revoked") for path in sorted(aside)))
    state = repository.state()
    _check_line(state, role)
    targets = copy.deepcopy(state.targets.signed)
    last = dict(targets.unrecognized_fields.get(LAST, {}))
    last[role] = max([sequence(file.custom) for file in state.lines[role].signed.targets.values()], default=0)
    targets.unrecognized_fields[LAST] = last
    _withdraw(targets, role)
    if not repository.can_sign("targets", state.root.signed):
        check_enough(0, state.root.signed.get_delegated_role("targets"), "targets", repository.keys)
    aside = {key.path for key in repository.keys.of(role)}
    kept = repository.keys.without([key.id for key in repository.keys.of(role)])
    replace(repository, keys=kept).commit(state, {"targets": targets})
    old = tuple(path.with_name(f"{path.name}.revoked") for path in sorted(aside))
    return Rotation(role, None, old, state.root.signed.version, was_root=False)


def delegate(targets: Targets, line: str, key: RoleKey) -> None:
    """Give a model line to a key: it signs ``LINE/*``, and nobody is asked after it."""
    from tuf.api.metadata import DelegatedRole, Delegations

    if targets.delegations is None:
        targets.delegations = Delegations({}, {})
    if targets.delegations.roles is None:
        targets.delegations.roles = {}
    role = DelegatedRole(line, [], 1, terminating=True, paths=[f"{line}/*"])
    targets.delegations.roles[line] = role
    targets.add_key(key.signer.public_key, line)


def sequence(custom: object) -> int:
    """Return the sequence that a release's entry in its line's metadata states; 0 where it states none."""
    found = custom.get("sequence") if isinstance(custom, dict) else None
    return found if type(found) is int and found > 0 else 0


def _withdraw(targets: Targets, line: str) -> None:
    assert targets.delegations is not None
    assert targets.delegations.roles is not None
    for number in list(targets.delegations.roles[line].keyids):
        targets.revoke_key(number, line)
    del targets.delegations.roles[line]


def _check_line(state: State, line: str) -> None:
    if line not in delegated(state.targets):
        known = ", ".join((*ROOTS, *TOP, *sorted(delegated(state.targets))))
        raise UsageError(f"the repository trusts no role {line}, but {known}", next_step=_ROTATE)


def _rotate_line(repository: Repository, state: State, line: str) -> Rotation:
    _check_line(state, line)
    old = tuple(key.path for key in repository.keys.of(line))
    targets = copy.deepcopy(state.targets.signed)
    _withdraw(targets, line)
    keys, new = repository.keys.with_new(line, targets.version + 1)
    delegate(targets, line, new)
    changed = {line: state.lines[line].signed, "targets": targets}
    replace(repository, keys=keys).commit(state, changed)
    return Rotation(line, new.path, old, state.root.signed.version, was_root=False)


def _rotate_top(repository: Repository, state: State, role: str) -> Rotation:
    in_root = "root" if role in ROOTS else role
    before = state.root.signed
    numbers = _numbers(before, role)
    old = tuple(key for key in repository.keys.of(role) if key.id in numbers)
    check_enough(
        len(repository.keys.signers(before.roles["root"].keyids)), before.roles["root"], "root", repository.keys
    )
    keys, new = repository.keys.with_new(role, before.version + 1)
    root = copy.deepcopy(state.root)
    for number in numbers:
        root.signed.revoke_key(number, in_root)
    root.signed.add_key(owned(new.signer.public_key, role), in_root)
    root.signed.version += 1
    stamp(root.signed, LIVES["root"], repository.now())
    root.signatures.clear()
    for signer in dict.fromkeys(
        (*keys.signers(before.roles["root"].keyids), *keys.signers(root.signed.roles["root"].keyids))
    ):
        root.sign(signer, append=True)
    check_enough(len(keys.signers(root.signed.roles["root"].keyids)), root.signed.roles["root"], "root", keys)
    ours = replace(repository, keys=keys)
    if in_root != "root":
        changed = {"targets": state.targets.signed} if role == "targets" else {}
        cosigners = {role: tuple(key.signer for key in old)}
        ours.commit(replace(state, root=root), changed, cosigners)
    data, version = root.to_bytes(), root.signed.version
    if not repository.storage.create(f"metadata/{version}.root.json", data):
        cause = "somebody else wrote a new root meanwhile"
        raise EnvironmentFault(cause, where=repository.storage.name, next_step="repeat the same command")
    atomic.write_bytes(repository.keys.folder / f"{version}.root.json", data)
    return Rotation(role, new.path, tuple(key.path for key in old), version, was_root=True)


def _numbers(root: Root, role: str) -> list[str]:
    """Return the keys of a role; of root the one of this name."""
    if role not in ROOTS:
        return list(root.roles[role].keyids)
    return [number for number in root.roles["root"].keyids if root.keys[number].unrecognized_fields.get(OWNER) == role]
