"""Tell what a run found: one record, a page that needs no network, and lines for the terminal."""

from __future__ import annotations

from haversack.report.activations import Activations, Bytes
from haversack.report.build import build, memory, pair
from haversack.report.files import HTML_NAME, JSON_NAME, read, write, write_page
from haversack.report.page import render
from haversack.report.record import Environment, Forecast, LayerFacts, ModelFacts, Record, Samples
from haversack.report.text import lines

__all__ = [
    "HTML_NAME",
    "JSON_NAME",
    "Activations",
    "Bytes",
    "Environment",
    "Forecast",
    "LayerFacts",
    "ModelFacts",
    "Record",
    "Samples",
    "build",
    "lines",
    "memory",
    "pair",
    "read",
    "render",
    "write",
    "write_page",
]
