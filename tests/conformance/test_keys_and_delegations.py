"""Who may sign what: thresholds, new keys through many roots, and roles below targets; of the conformance client."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from securesystemslib.signer import CryptoSigner
from simulator import POOL
from tuf.api.metadata import Metadata

# Roots one after the other: keys that root names, how many must sign, who signs; and whether the last one is taken.
ROOTS = {
    "one key for another, signed by both": ([((1,), 1, (1,)), ((2,), 1, (1, 2)), ((2,), 1, (2,))], True),
    "three new roots, each with new keys": (
        [((1, 2, 3), 2, (1, 2)), ((2, 3, 4), 2, (2, 3)), ((3, 4, 5), 2, (3, 4)), ((4, 5, 6), 2, (4, 5))],
        True,
    ),
    "strangers may sign as well": ([((1,), 1, (8, 1, 9)), ((2,), 1, (9, 2, 1, 8))], True),
    "any two of three": ([((1, 2, 3), 2, (1, 3)), ((1, 2, 3), 2, (2, 3)), ((1, 2, 3), 2, (3, 1))], True),
    "all at once, signed by both": ([((1, 2, 3), 2, (1, 2)), ((4, 5, 6), 2, (1, 3, 4, 6))], True),
    "a higher threshold": ([((1, 2, 3), 1, (1,)), ((1, 2, 3), 2, (1, 2))], True),
    "a lower threshold": ([((1, 2, 3), 2, (1, 2)), ((1, 2, 3), 1, (1, 2)), ((1, 2, 3), 1, (3,))], True),
    "not signed by the old key": ([((1,), 1, (1,)), ((2,), 1, (2, 8, 9))], False),
    "not signed by the new key": ([((1,), 1, (1,)), ((2,), 1, (1, 8, 9))], False),
    "one of the old keys too few": ([((1, 2, 3), 2, (1, 2)), ((3, 4, 5), 2, (3, 4, 5))], False),
    "one of the new keys too few": ([((1, 2, 3), 2, (1, 2)), ((3, 4, 5), 2, (1, 2, 3))], False),
    "a higher threshold not met": ([((1, 2, 3), 1, (1,)), ((1, 2, 3), 2, (2,))], False),
    "a lower threshold before it counts": ([((1, 2, 3), 2, (1, 2)), ((1, 2, 3), 1, (1,))], False),
    "nobody signs": ([((1,), 1, (1,)), ((1,), 1, ())], False),
}


@pytest.mark.parametrize("case", ROOTS)
def test_roots_follow_each_other(client, repository, case):
    roots, taken = ROOTS[case]
    repository.root.version = 0
    repository.files = {path: data for path, data in repository.files.items() if "root" not in path}
    for numbers, threshold, signed_by in roots:
        repository.rotate("root", *numbers, threshold=threshold, signed_by=signed_by)
        repository.root.version += 1
        repository.write("root")
    client.root = repository.first_root
    client.init()
    assert client.refresh() == (0 if taken else 1)
    last = len(roots) if taken else len(roots) - 1
    assert client.kept("root") == repository.files[f"metadata/{last}.root.json"]


# Keys that root names, how many must sign, who signs; and whether it is taken.
OTHERS = {
    "a new key": ((5,), 1, (5,), True),
    "strangers as well": ((5,), 1, (8, 5, 9), True),
    "any three of five": ((4, 5, 6, 7, 8), 3, (8, 4, 6), True),
    "the old key only": ((5,), 1, (2, 3, 1), False),
    "two of three": ((4, 5, 6, 7, 8), 3, (4, 5), False),
    "a stranger for the third": ((4, 5, 6, 7, 8), 3, (4, 5, 9), False),
    "more than there are": ((4, 5), 3, (4, 5), False),
    "nobody": ((5,), 1, (), False),
}


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
@pytest.mark.parametrize("case", OTHERS)
def test_roles_get_new_keys(client, repository, role, case):
    numbers, threshold, signed_by, taken = OTHERS[case]
    client.ready()
    repository.rotate(role, *numbers, threshold=threshold, signed_by=signed_by)
    repository.publish("root")
    repository.publish(role)
    assert client.refresh() == (0 if taken else 1)
    assert client.version("root") == 2
    if taken:
        assert client.kept(role) == repository.files[repository.path(role, 2)]
    elif role != "timestamp":  # one that the new root does not trust may be gone
        assert client.version(role) == 1


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_one_signature_many_times_is_one(client, repository, role):
    client.ready()
    repository.rotate(role, 4, 5, threshold=2, signed_by=(4,))
    repository.publish("root")
    repository.publish(role)
    path = repository.path(role, 2)
    data = json.loads(repository.files[path])
    data["signatures"] *= 2
    repository.files[path] = json.dumps(data).encode()
    assert client.refresh() == 1


def test_one_key_named_twice_is_refused(client, repository):
    client.ready()
    repository.rotate("snapshot", 4, threshold=1)
    repository.root.roles["snapshot"].keyids *= 2
    repository.root.roles["snapshot"].threshold = 2
    repository.publish("root")
    repository.publish("snapshot")
    assert client.refresh() == 1
    assert client.version("snapshot") == 1


def test_a_signature_over_something_else_is_none(client, repository):
    client.ready()
    repository.publish("timestamp")
    other = Metadata.from_bytes(repository.files["metadata/1.root.json"])
    other.sign(POOL[1])
    data = json.loads(repository.files["metadata/timestamp.json"])
    data["signatures"][0]["sig"] = next(iter(other.signatures.values())).signature
    repository.files["metadata/timestamp.json"] = json.dumps(data).encode()
    assert client.refresh() == 1
    assert client.version("timestamp") == 1


@pytest.mark.parametrize("kind", ["generate_ecdsa", "generate_rsa"])
def test_keys_of_other_kinds(client, repository, kind):
    client.ready()
    signer = getattr(CryptoSigner, kind)()
    repository.root.add_key(signer.public_key, "targets")
    repository.root.roles["targets"].threshold = 2
    repository.publish("root")
    repository.publish("targets")
    assert client.refresh() == 1
    repository.signers["targets"].append(signer)
    repository.publish("targets")
    assert client.refresh() == 0
    assert client.versions() == (2, 3, 3, 3)


# Roles below targets: (above, role, its paths, whether nobody is asked after it), and who is asked for "a/b.zip".
TWO = (("targets", "A", "*/*", False), ("targets", "B", "*/*", False))
TREES = {
    "one": ([("targets", "A", "*/*", False)], "A"),
    "in their order": ([("targets", "A", "*/*", False), ("targets", "B", "a/*", False)], "A B"),
    "one below another": ([("targets", "A", "*/*", False), ("A", "B", "*/*.zip", False)], "A B"),
    "depth first": (
        [("targets", "A", "*/*", False), ("targets", "B", "*/*", False), ("A", "C", "*/*", False)],
        "A C B",
    ),
    "nobody after a terminating one": (
        [("targets", "A", "*/*", True), ("targets", "B", "*/*", False), ("A", "C", "*/*", False)],
        "A C",
    ),
    "not below a terminating one either": (
        [*TWO, ("A", "C", "*/*", True), ("A", "D", "*/*", False)],
        "A C",
    ),
    "paths that do not match": (
        [("targets", "A", "*.zip", False), ("targets", "B", "b/*", False), ("targets", "C", "a/?.zip", False)],
        "C",
    ),
    "what is above must match as well": ([("targets", "A", "b/*", False), ("A", "B", "*/*", False)], ""),
    "in a circle": (
        [("targets", "A", "*/*", False), ("A", "B", "*/*", False), ("B", "A", "*/*", False)],
        "A B",
    ),
    "two ways to one": (
        [*TWO, ("A", "C", "*/*", False), ("B", "C", "*/*", False)],
        "A C B",
    ),
}


@pytest.mark.parametrize("case", TREES)
def test_roles_are_asked_in_their_order(client, repository, case):
    tree, asked = TREES[case]
    for above, role, paths, terminating in tree:
        repository.delegate(above, role, paths, terminating=terminating)
    repository.publish("targets", *dict.fromkeys(role for _, role, _, _ in tree))
    client.init()
    assert client.download("a/b.zip") == 1
    assert repository.asked[4:] == [f"metadata/1.{role}.json" for role in asked.split()]


def test_a_file_of_a_role_below(client, repository):
    repository.delegate("targets", "A", "a/*")
    repository.delegate("A", "B", "a/*.zip", key=5)
    repository.add("B", "a/b.zip", b"content")
    repository.publish("targets", "A", "B")
    client.init()
    assert client.download("a/b.zip") == 0
    assert client.files() == [b"content"]


def test_a_file_outside_of_its_roles_paths_is_no_file(client, repository):
    """B signs a/b.txt, which nobody gave to it."""
    repository.delegate("targets", "A", "a/*")
    repository.delegate("A", "B", "a/*.zip", key=5)
    repository.add("B", "a/b.txt", b"content")
    repository.add("B", "c/b.zip", b"content")
    repository.publish("targets", "A", "B")
    client.init()
    assert client.download("a/b.txt") == 1
    assert client.download("c/b.zip") == 1
    assert client.files() == []


def test_a_role_below_that_another_key_signs_is_refused(client, repository):
    repository.delegate("targets", "A", "*")
    repository.add("A", "file", b"content")
    repository.signers["A"] = [POOL[6]]
    repository.publish("targets", "A")
    client.init()
    assert client.download("file") == 1
    assert client.files() == []


def test_a_role_below_that_the_snapshot_does_not_name_is_refused(client, repository):
    repository.delegate("targets", "A", "*")
    repository.add("A", "file", b"content")
    repository.publish("targets", "A")
    del repository.signed["snapshot"].meta["A.json"]
    repository.publish("snapshot")
    client.init()
    assert client.download("file") == 1


@pytest.mark.parametrize("role", ["?", "#", "a b", "/role", "../role", "../../root", "..", "r%2fx", "ü"])
def test_names_of_roles_lead_nowhere_else(client, repository, role, tmp_path):
    repository.delegate("targets", role, "*")
    repository.publish("targets", role)
    client.init()
    before = {path for path in tmp_path.rglob("*") if client.metadata not in path.parents}
    assert client.download("no file") == 1
    assert repository.asked[-1] == f"metadata/1.{quote(role, '')}.json"
    kept = {path for path in tmp_path.rglob("*") if path.is_file() and client.metadata not in path.parents}
    assert kept <= before
    names = [path for path in client.metadata.iterdir() if path.is_file() and path.name != "first_root.json"]
    assert len(names) == 5, names
