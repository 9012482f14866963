"""Silence ends where the block ends."""

from __future__ import annotations

import logging
import sys
import warnings

import pytest

from haversack.tools.graph.onnx.quiet import quiet


def test_nothing_gets_out(capsys, caplog):
    with warnings.catch_warnings(record=True) as told, quiet():
        warnings.warn("a warning", stacklevel=1)
        logging.getLogger("torch.onnx").warning("a line")
        sys.stdout.write("a word")
    assert (told, caplog.records, capsys.readouterr().out) == ([], [], "")


def test_errors_are_still_logged(caplog):
    with quiet():
        logging.getLogger("torch.onnx").error("an error")
    assert [record.message for record in caplog.records] == ["an error"]


def test_all_is_as_before(capsys, caplog):
    with pytest.raises(RuntimeError, match="inside"), quiet():
        raise RuntimeError("inside")
    logging.getLogger("other").warning("heard")
    sys.stdout.write("said\n")
    assert [record.message for record in caplog.records] == ["heard"]
    assert capsys.readouterr().out == "said\n"
    with pytest.warns(UserWarning, match="seen"):
        warnings.warn("seen", stacklevel=1)
