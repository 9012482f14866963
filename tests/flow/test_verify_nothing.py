"""A run that left no artefact: ``verify`` ends as the run did, and never as if all were well."""

from __future__ import annotations

import json

import pytest

from haversack.base.errors import ConversionError, VerificationError
from haversack.cli import main
from haversack.flow.verify import verify

KINDS = [("unreadable", 4), ("weight-changed", 5), ("worker-crashed", 5), (None, 5)]


@pytest.fixture
def emptied(run):
    """A function that takes the artefacts out of a run's report, its candidates failed with a finding."""

    def empty(kind):
        path = run / "report.json"
        data = json.loads(path.read_text())
        told = [{"kind": kind, "severity": "error", "layer": "", "text": "it is", "allowed": False}] if kind else []
        for one in data["candidates"]:
            one |= {"artifact": None, "verdict": "failed", "reason": "the writer refused it", "findings": told}
        path.write_text(json.dumps({**data, "best": {}, "next_step": "mend it"}))
        return run

    return empty


@pytest.mark.parametrize(("kind", "code"), KINDS)
def test_it_is_an_error_with_the_exit_code_of_the_run(emptied, kind, code, capsys):
    run = emptied(kind)
    with pytest.raises(ConversionError if code == 4 else VerificationError) as caught:
        verify(run)
    assert caught.value.exit_code == code
    said = str(caught.value)
    assert "the run left no artefact" in said
    assert "the writer refused it" in said
    assert "next: mend it" in said
    assert main(["verify", str(run)]) == code
    assert "the run left no artefact" in capsys.readouterr().err


def test_it_is_an_object_where_json_was_asked_for(emptied, capsys):
    assert main(["verify", str(emptied("unreadable")), "--json"]) == 4
    assert json.loads(capsys.readouterr().out)["error"]["cause"].startswith("the run left no artefact")
