"""The page: everything a run found, nothing from outside, and hostile names that stay text."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from haversack.base.errors import MissingExtra
from haversack.base.finding import Finding
from haversack.report import build, render
from haversack.report.page import FILTERS, SHOWN, TEMPLATES, _environment, bars, groups
from haversack.report.record import LayerRecord, Samples

VOID = {"meta", "link", "br", "hr", "img", "input"}
EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>{{ 7*7 }}\'"&'
SECTIONS = [
    "Budget",
    "Findings",
    "Size against loss",
    "Candidates",
    "onnxruntime, measured on the file",
    "Model before and after",
    "Forecast against measured",
    "Where and on what it was measured",
    "Files and hashes",
    "Repeat it",
]


class Page(HTMLParser):
    """Elements, text and headings of a page; faults are tags that do not close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.faults += self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}>")

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


def headings(text: str, level: int) -> list[str]:
    found = re.findall(rf"<h{level}[^>]*>(.*?)</h{level}>", text, re.DOTALL)
    return [re.sub(r"<[^>]+>", "", heading).strip() for heading in found]


def hostile(record):
    """Put a hostile text wherever a user's or a runtime's text can stand."""
    best = record.candidates[0]
    plan = replace(best.plan, origin=EVIL)
    finding = replace(best.findings[0], text=EVIL, layer=EVIL)
    layers = (replace(best.layers[0], key=EVIL), *best.layers[1:])
    file = replace(best.artifact.files[0], path=EVIL, sha256=EVIL)
    changed = replace(
        best,
        plan=plan,
        reason=EVIL,
        findings=(finding,),
        layers=layers,
        artifact=replace(best.artifact, files=(file,)),
        parity=replace(best.parity, layers={EVIL: 0.5}),
        latency=replace(best.latency, device=EVIL),
    )
    return replace(
        record,
        model=replace(record.model, name=EVIL, digest=EVIL),
        baseline=replace(record.baseline, metric=EVIL),
        candidates=(changed, *record.candidates[1:]),
        environment=replace(record.environment, cpu=EVIL, os=EVIL, versions={EVIL: EVIL}),
        seconds={EVIL: 1.0},
        command=EVIL,
        created=EVIL,
        next_step=EVIL,
        samples=replace(record.samples, note=EVIL),
    )


@pytest.mark.parametrize("fixture", ["record", "hollow", "many"])
def test_well_formed_small_and_alone(page_of, fixture):
    text = page_of(fixture)
    page = Page(text)
    assert page.faults == []
    assert len(text.encode()) < 1_000_000
    assert not re.search(r"https?://|//[a-z]+\.", text)
    assert not re.search(r"@import|url\(", text)
    for tag, attributes in page.elements:
        assert tag not in {"script", "iframe", "object", "embed", "img", "base", "form"}
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "action"):
            assert attributes.get(name, "data:,") == "data:,"


@pytest.mark.parametrize("fixture", ["record", "hollow", "many"])
def test_the_policy_forbids_the_network_and_scripts(page_of, fixture):
    page = Page(page_of(fixture))
    policy = next(a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';")
    assert "script-src" not in policy


def test_every_section_is_there(page_of):
    text = page_of("record")
    assert headings(text, 1) == ["EfficientNet-Lite0"]
    assert headings(text, 2)[1:] == SECTIONS
    assert headings(text, 2)[0].startswith("onnxruntime")


@pytest.mark.parametrize(
    "words",
    [
        "Every budget is met on onnxruntime.",
        "5.02 MB ×0.27 of float (18.6 MB)",
        "11.8 ms ×0.49 of float (24.3 ms)",
        "0.27 pt 95 %: −0.34 to 1.10 pt",
        "equal scores on all n samples give ±3 / (n + 2), not zero",
        "98.1 % on both halves; relative error 0.0712",
        "Size 5.20 MB 5.02 MB met 180 kB to spare",
        "Drop in quality 1.00 pt 0.27 pt met 0.73 pt to spare",
        "Values equal to the reference, bit for bit 186,000 of 186,000",
        "Encodings read back equal 151 of 151",
        "Cold (load and first call) 61.7 ms",
        "Warm, p95 12.6 ms",
        "Quartiles of the ratio ×0.48 to ×0.50",
        "local, 1 thread, 200 interleaved pairs",
        "Peak memory 31.4 MB above the bare runtime",
        "drop 2.15 pt is above the 1.00 pt allowed",
        "size 8.87 MB is above 5.20 MB; latency x0.61 is above x0.55",
        "the runtime crashed while it opened the file error: worker-crashed",
        "dead-channel on onnxruntime, _blocks.0._depthwise_conv conv2d#0",
        "Before 4,630,232 384,853,504 18.5 MB 18.6 MB After",
        "After, on onnxruntime 4,630,232 384,853,504 4.92 MB 5.02 MB",
        "folded 49 normalisations",
        "5.01 MB 5.02 MB ×0.50 ×0.49 0.41 pt 0.27 pt 0.0660 0.0712",
        "top1 88.7 %, standard error 2.32 pt; stated as 88.0 %",
        "Calibration 128 samples Choosing 186 samples Reported 186 samples",
        "the figures here are from the untouched half.",
        "Agreement with float and errors of outputs, which need no labels, are over both halves.",
        "Agreement with float, on both halves 9",
        "on both halves; relative error 0.",
        "AMD EPYC 7B13, 2 cores Flags avx2 f16c fma Threads 1",
        "onnxruntime 1.32.0",
        "profile 11.4 s",
        "5f" * 32,
        "haversack pack examples/lite0.py --budget size=5.2MB",
        "haversack bundle out/",
    ],
)
def test_what_a_run_found_is_told(page_of, words):
    assert words in Page(page_of("record")).text


def test_missing_values_are_dashes_and_words(page_of):
    text = Page(page_of("hollow")).text
    assert "No artefact for litert" in text
    assert "Drop in quality 0.0100 nats — not measured" in text
    assert "No candidate has both a size and a loss to plot." in text
    assert "No layers were told." in text
    assert "Not compared." in text
    assert "Not measured." in text
    assert not re.search(r"\bNone\b(?! on)|\bnan\b|\binf\b|Undefined", text)


def test_a_section_without_content_is_left_out(page_of):
    found = headings(page_of("hollow"), 2)
    assert "Forecast against measured" not in found
    assert "litert, measured on the file" not in found


def test_no_budget_no_candidates(record):
    text = Page(render(replace(record, budget=(), candidates=(), best={}))).text
    assert "No budget was set." in text
    assert "Candidates None was made." in text


def test_a_hostile_record_is_inert(record):
    text = render(hostile(record))
    page = Page(text)
    assert page.faults == []
    assert page.count("script") == 0
    assert page.count("img") == 0
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert text.count("&lt;script&gt;") > 15
    assert "49'" not in page.text
    assert EVIL in page.text


def test_a_hostile_target_is_inert(values):
    first = values["candidates"][0]
    evil = replace(first, plan=replace(first.plan, target=EVIL), findings=(Finding("noisy", EVIL),))
    made = build(**{**values, "candidates": (evil,), "best": {EVIL: evil.id}, "after": {}, "forecasts": {}})
    page = Page(render(made))
    assert page.faults == []
    assert page.count("script") == 0
    assert page.count("img") == 0


def test_findings_by_severity_gravest_first(values):
    first = values["candidates"][0]
    grave = Finding("not-exact", "12 of 186,000 values differ")
    made = build(**{**values, "candidates": (replace(first, findings=(*first.findings, grave)),)})
    assert [(group.severity, sum(alike.count for alike in group.kinds)) for group in groups(made)] == [
        ("error", 1),
        ("warning", 2),
        ("note", 1),
    ]
    assert headings(render(made), 3)[:3] == ["Error", "Warnings", "Note"]


def test_many_findings_of_a_kind_are_folded_away_but_there(values):
    many = tuple(Finding("dead-channel", f"{index} scales were raised", f"layer{index}:conv2d#0") for index in range(9))
    first = replace(values["candidates"][0], findings=many)
    page = render(build(**{**values, "candidates": (first,)}))
    assert page.count("<details>") == 1
    assert f"<summary>{9 - SHOWN} more of dead-channel on onnxruntime</summary>" in page
    before, folded = page.split("<details>")
    assert [f"layer{index}<" in before for index in range(9)] == [index < SHOWN for index in range(9)]
    assert all(f"layer{index}<" in folded for index in range(SHOWN, 9))
    assert "warning: dead-channel (9)" in page


def test_an_allowed_finding_is_marked(values):
    first = replace(values["candidates"][0], findings=(Finding("float-op", "2 layers in float"),))
    text = Page(render(build(**{**values, "candidates": (first,), "allowed": ("float-op",)}))).text
    assert "float-op on onnxruntime allowed 2 layers in float" in text


def test_findings_of_rejected_candidates_stay_with_them(record, page_of):
    assert not [alike for group in groups(record) for alike in group.kinds if alike.kind == "worker-crashed"]
    assert "worker-crashed" in page_of("record")


def layer(error: float | None) -> LayerRecord:
    return LayerRecord("a:conv2d#0", "conv2d", 1, 1, "int8", 8, "channel", error, None)


@pytest.mark.parametrize(
    ("errors", "lengths", "worst"),
    [
        ((), [], []),
        ((0.1,), [100.0], [True]),
        ((0.1, 0.2, 0.05), [50.0, 100.0, 25.0], [False, True, False]),
        ((None, 0.2), [0.0, 100.0], [False, True]),
        ((None, None), [0.0, 0.0], [False, False]),
        ((0.0, 0.0), [0.0, 0.0], [False, False]),
    ],
)
def test_bars(errors, lengths, worst):
    made = bars(tuple(map(layer, errors)))
    assert [bar.length for bar in made] == lengths
    assert [bar.worst for bar in made] == worst


def test_of_fifty_layers_five_are_worst(record, page_of):
    made = bars(record.candidates[0].layers)
    marked = sorted(bar.layer.relative_error for bar in made if bar.worst)
    rest = [bar.layer.relative_error for bar in made if not bar.worst]
    assert (len(made), len(marked)) == (50, 5)
    assert min(marked) > max(rest)
    assert page_of("record").count(" worst</span></b>") == 5


def test_every_table_has_headers_with_scope(page_of):
    page = Page(page_of("record"))
    cells = [attributes for tag, attributes in page.elements if tag == "th"]
    assert page.count("table") >= 6
    assert cells
    assert all(cell.get("scope") in {"col", "row", "rowgroup"} for cell in cells)


def test_scrolling_boxes_can_be_reached_and_are_named(page_of):
    boxes = [a for _, a in Page(page_of("many")).elements if "scroll" in (a.get("class") or "").split()]
    assert len(boxes) >= 8
    assert all(box["tabindex"] == "0" and box["aria-label"] and box["role"] in {"region", "img"} for box in boxes)


def test_sections_are_named_by_their_headings(page_of):
    page = Page(page_of("many"))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    named = [attributes["aria-labelledby"] for tag, attributes in page.elements if tag == "section"]
    assert len(ids) == len(set(ids))
    assert set(named) <= set(ids)


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb, WCAG 2.2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("ink", "paper"),
    [
        ("ink", "paper"),
        ("soft", "paper"),
        ("soft", "raised"),
        ("accent", "paper"),
        ("accent", "accent-wash"),
        ("alert", "paper"),
        ("alert", "alert-wash"),
    ],
)
def test_text_has_contrast(page_of, scheme, ink, paper):
    found = re.findall(rf"--({ink}|{paper}): (#[0-9a-f]{{6}});", page_of("record"))
    chosen = dict(found[:2] if scheme == 0 else found[2:])
    light, dark = sorted((luminance(chosen[ink]), luminance(chosen[paper])), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_both_schemes_define_the_same_colours(page_of):
    style = re.search(r"<style>(.*?)</style>", page_of("record"), re.DOTALL)[1]
    light, dark = (
        set(re.findall(r"(--[a-z0-9-]+):", part)) for part in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    )
    assert light - dark == {"--sans", "--mono"}
    assert set(re.findall(r"var\((--[a-z0-9-]+)\)", page_of("record"))) <= light


def test_filters_are_all_used():
    made = _environment()
    texts = "".join(made.loader.get_source(made, name)[0] for name in TEMPLATES)
    assert [word.__name__ for word in FILTERS if not re.search(rf"\| {word.__name__}\b", texts)] == []


@pytest.mark.parametrize("package", ["jinja2", "markupsafe"])
def test_a_missing_template_engine_names_its_extra(record, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match="jinja2") as caught:
        render(record)
    assert "haversack[pack]" in caught.value.next_step


def test_an_operation_of_no_module_is_named_once(record):
    first = record.candidates[0]
    parity = replace(first.parity, layers={":relu#1:out": 0.5, **first.parity.layers})
    page = render(replace(record, candidates=(replace(first, parity=parity), *record.candidates[1:])))
    assert page.count("relu#1:out") == 1


def test_the_quality_stands_beside_its_drop(record):
    page = render(record)
    assert re.search(r"<dt>top1</dt><dd>88\.4 %\s*<small>float 88\.7 %</small>", page)


def test_one_is_no_plural(record):
    samples = Samples(1, 2, 1_200)
    shown = Page(render(replace(record, samples=samples))).text
    for said in ("Calibration 1 sample ", "Choosing 2 samples ", "Reported 1,200 samples "):
        assert said in shown
