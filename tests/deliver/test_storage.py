"""Where a repository lies, a folder or a bucket behind a real server: made once, replaced only as it was seen."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sites import Site, over_http

from haversack.base.errors import EnvironmentFault, MissingExtra, Refused, UsageError
from haversack.deliver import places, s3
from haversack.deliver.rotation import rotate
from haversack.deliver.storage import Folder, Storage, checked
from haversack.tools.store import atomic


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start moto's server, which speaks S3 over HTTP, and yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (tmp_path_factory.mktemp("moto") / "log").open("wb")
    with log:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(command, stdout=log, stderr=log)
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(20)


@pytest.fixture
def amazon(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let boto3 find the server, which has the bucket ``models`` and nothing in it."""
    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    import boto3

    with urlopen(Request(f"{server}/moto-api/reset", method="POST"), timeout=30):  # noqa: S310 - a server of the test
        boto3.client("s3").create_bucket(Bucket="models")
    return server


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return places.opened(str(tmp_path / "site"))
    request.getfixturevalue("amazon")
    return places.opened("s3://models/field/site")


def test_what_is_made_is_read(place):
    assert place.read("blobs/ab/cd", 10) is None
    assert place.create("blobs/ab/cd", b"content")
    assert place.read("blobs/ab/cd", 7).data == b"content"
    assert place.create("empty.json", b"")
    assert place.read("empty.json", 0).data == b""


def test_what_is_made_is_never_changed(place):
    assert place.create("1.root.json", b"first")
    assert place.create("1.root.json", b"first")
    assert not place.create("1.root.json", b"other")
    assert not place.create("1.root.json", b"firs")
    assert place.read("1.root.json", 100).data == b"first"


def test_too_much_is_not_read(place):
    place.create("large", bytes(1000))
    with pytest.raises(Refused, match="more than 999"):
        place.read("large", 999)


def test_a_swap_needs_what_was_seen(place):
    assert place.swap("metadata/timestamp.json", b"one", "")
    assert not place.swap("metadata/timestamp.json", b"two", "")
    seen = place.read("metadata/timestamp.json", 100)
    assert place.swap("metadata/timestamp.json", b"two", seen.mark)
    assert not place.swap("metadata/timestamp.json", b"three", seen.mark)
    assert place.read("metadata/timestamp.json", 100).data == b"two"
    assert not place.swap("metadata/another.json", b"x", seen.mark)
    assert place.read("metadata/another.json", 100) is None


@pytest.mark.parametrize("path", ["", "/etc/x", "../x", "a/../b", "a//b", "a/", ".lock", "a/.b", "a b", "ä", "a\n"])
def test_a_path_stays_below_the_root(place, path):
    for act in (lambda: place.read(path, 9), lambda: place.create(path, b""), lambda: place.swap(path, b"", "")):
        with pytest.raises(ValueError, match="no path"):
            act()


@given(st.text(alphabet="ab./\\ %~\n\0é", max_size=12))
def test_a_path_that_is_taken_is_plain(path):
    """What is let through is the path that it says, below the root, and hides nothing."""
    try:
        found = checked(path)
    except ValueError:
        return
    place = Path("/site", found)
    assert str(place) == f"/site/{path}"
    assert place.resolve().is_relative_to("/site")
    assert not any(part.startswith(".") for part in place.parts)
    assert found.isascii()
    assert found.isprintable()


def test_one_of_many_makes_a_file(place):
    """Ten at once, each with its own content: one wins, and nobody sees half of it."""
    won = []
    threads = [
        threading.Thread(target=lambda number=number: won.append(place.create("2.root.json", bytes([number]) * 3000)))
        for number in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == [False] * 9 + [True]
    assert len(set(place.read("2.root.json", 3000).data)) == 1


def test_a_repository_in_either(place, tmp_path):
    """Published, rotated, revoked and read as by a device."""
    site = Site.create(tmp_path / "made", place)
    site.publish("1.0.0", encrypt=True)
    site.publish("1.1.0")
    rotate(site.repository, "timestamp")
    assert not site.publish("1.1.0").changed

    def fetch(path: str) -> Iterator[bytes]:
        from haversack.deliver.trusted import Missing

        found = place.read(path, 1 << 22)
        if found is None:
            raise Missing("there is no such file", where=path)
        yield found.data

    assert site.device(fetch=fetch).release("digits").version == "1.1.0"


def test_a_device_reads_a_bucket_over_http(amazon, tmp_path):
    import boto3

    policy = (
        '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:GetObject",'
        '"Resource":"arn:aws:s3:::models/*"}]}'
    )
    boto3.client("s3").put_bucket_policy(Bucket="models", Policy=policy)
    site = Site.create(tmp_path / "made", places.opened("s3://models/site"))
    site.publish("1.0.0")
    device = site.device(fetch=over_http(f"{amazon}/models/site"))
    assert device.release("digits").version == "1.0.0"
    site.publish("1.1.0")
    assert device.release("digits").version == "1.1.0"


def test_what_lasts_may_be_cached_and_the_timestamp_not_for_long(amazon, tmp_path):
    import boto3

    Site.create(tmp_path / "made", places.opened("s3://models/site")).publish("1.0.0", encrypt=True)
    client = boto3.client("s3")
    listed = [item["Key"] for item in client.list_objects_v2(Bucket="models")["Contents"]]
    heads = {key.removeprefix("site/"): client.head_object(Bucket="models", Key=key) for key in listed}
    fleeting = [key for key, head in heads.items() if head["CacheControl"] != "public, max-age=31536000, immutable"]
    assert fleeting == ["metadata/timestamp.json"]
    assert heads["metadata/timestamp.json"]["CacheControl"] == "public, max-age=60"
    assert heads["metadata/1.root.json"]["ContentType"] == "application/json"
    assert {key.partition("/")[0] for key in heads} == {"metadata", "targets", "blobs", "keys"}


def test_a_bucket_that_is_not_there_is_told(amazon):
    place = places.opened("s3://nowhere/site")
    for act in (lambda: place.read("x", 9), lambda: place.create("x", b""), lambda: place.swap("x", b"", "")):
        with pytest.raises(EnvironmentFault, match="NoSuchBucket") as caught:
            act()
        assert caught.value.where == "s3://nowhere/site/x"


def test_no_server_and_no_credentials_are_told(amazon, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(EnvironmentFault, match="127.0.0.1:9"):
        places.opened("s3://models").read("x", 9)
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    with pytest.raises(EnvironmentFault, match="no-such-profile"):
        places.opened("s3://models")


@pytest.mark.parametrize(
    "url", ["s3://", "s3://A", "s3://models/../x", "s3://models/a b", "s3://models/a//b", "s3://x/y?z"]
)
def test_what_is_no_address_of_a_bucket(url):
    with pytest.raises(UsageError, match="no address"):
        s3.bucket(url)


@pytest.mark.parametrize("name", ["", "http://x/y", "https://x", "ftp://x", "gs://bucket"])
def test_what_is_no_place_to_publish_to(name):
    with pytest.raises(UsageError, match="no place to publish to"):
        places.opened(name)


def test_what_a_killed_publisher_left_is_removed(tmp_path):
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    dead = int(gone.stdout)
    (tmp_path / "blobs" / "ab").mkdir(parents=True)
    left = tmp_path / "blobs" / "ab" / f".cdef.{dead}-0123456789ab.part"
    ours = tmp_path / "metadata" / atomic.temporary_name("1.root.json")
    whole = tmp_path / "blobs" / "ab" / "cdef"
    ours.parent.mkdir()
    for path in (left, ours, whole):
        path.write_bytes(b"some")
    places.opened(str(tmp_path))
    assert [path.exists() for path in (left, ours, whole)] == [False, True, True], "a living one's stays"


def test_a_folder_by_its_path_or_url(tmp_path):
    assert places.opened(str(tmp_path)) == places.opened(f"file://{tmp_path}") == Folder(tmp_path)
    assert places.opened(str(tmp_path)).name == str(tmp_path)


def test_without_boto3_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(MissingExtra) as caught:
        places.opened("s3://models")
    assert caught.value.next_step == "pip install 'haversack[s3]'"


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "site").write_text("a file")
    with pytest.raises(EnvironmentFault):
        Folder(tmp_path / "site").create("x", b"")


def test_files_may_be_read_by_a_web_server(tmp_path):
    place = Folder(tmp_path / "site")
    place.create("blobs/ab/cd", b"x")
    assert (tmp_path / "site" / "blobs" / "ab" / "cd").stat().st_mode & 0o044 == 0o044
    assert sorted(path.name for path in (tmp_path / "site" / "blobs" / "ab").iterdir()) == ["cd"]
