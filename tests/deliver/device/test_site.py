"""Small files of a repository over real connections, and a whole update over http."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from shop import Shop, X, tried_here
from sites import served

from haversack.base.errors import EnvironmentFault, Refused, UsageError
from haversack.deliver.patience import TooSlow
from haversack.deliver.site import Site
from haversack.deliver.trusted import Missing
from haversack.flow.client import Client


def test_urls_and_folders(tmp_path):
    assert Site.of("https://models.example/site/").url("a/b c.json") == "https://models.example/site/a/b%20c.json"
    assert Site.of(tmp_path).root == tmp_path.as_uri()
    assert Site.of("~/site").root == (Path.home() / "site").as_uri()
    assert Site.of(tmp_path.as_uri()).root == tmp_path.as_uri()
    for url in ("s3://bucket/x", "ftp://x", "https://x/y?token=1"):
        with pytest.raises(UsageError, match="a device reads http, https and file") as caught:
            Site.of(url)
        assert caught.value.exit_code == 2


@pytest.mark.parametrize("nothing", ["", " "])
def test_no_repository_is_not_the_folder_where_it_is_typed(nothing):
    with pytest.raises(UsageError, match="it names nothing") as caught:
        Site.of(nothing)
    assert (caught.value.exit_code, caught.value.where) == (2, "--repository")


def test_small_files(serve, good, quick):
    server = serve(good(b"small"))
    site = Site(server.url, quick)
    assert site.small("a", 5) == b"small"
    with pytest.raises(Refused, match="more than 4 bytes"):
        site.small("a", 4)
    server.script.append(lambda request: request.head("404 Not Found", "Content-Length: 0"))
    with pytest.raises(Missing):
        site.small("a", 5)


def test_a_connection_that_breaks_is_tried_again(serve, good, quick):
    server = serve(good(b"small"))
    server.script += [lambda request: None, lambda request: request.head("503 Busy", "Content-Length: 0")]
    assert Site(server.url, quick).small("a", 5) == b"small"

    def torn(request):
        request.head("200 OK", "Content-Length: 5")
        request.send(b"sma")

    server.script.append(torn)
    with pytest.raises(EnvironmentFault, match="broke off after 3 of 5"):
        Site(server.url, quick).small("a", 5)
    dead = serve(lambda request: None)
    with pytest.raises(EnvironmentFault):
        Site(dead.url, quick).small("a", 5)
    assert len(dead.requests) == quick.attempts


def test_a_slow_server_is_given_up(serve, quick):
    def trickle(request):
        request.head("200 OK", "Content-Length: 1000")
        while request.send(b"x"):
            time.sleep(0.05)

    with pytest.raises(TooSlow):
        Site(serve(trickle).url, quick).small("a", 1000)


def test_an_update_over_http(tmp_path):
    shop = Shop.create(tmp_path)
    shop.publish("1.0.0", 1.0)
    with served(shop.site.root) as url:
        client = Client(tmp_path / "home", url, shop.root, test=tried_here, tune=None)
        assert client.update("digits").installed.version == "1.0.0"
        shop.publish("1.1.0", 2.0)
        done = client.update("digits")
    assert done.forms["onnxruntime.onnx"] == "bsdiff"
    assert client.status().rate > 0
    with pytest.raises(EnvironmentFault):
        client.update("digits")
    with client.open("digits", follow=False) as model:
        assert float(np.asarray(model(X))[0, 0]) == 2.0
