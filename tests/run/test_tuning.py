"""Threads and delegate are chosen by measurement, nothing is ranked inside the noise, and it is remembered."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from haversack.base.errors import EnvironmentFault, VerificationError
from haversack.flow.tuned import tuned
from haversack.measure import noise
from haversack.run import opening, tuning
from haversack.run.session import Setting
from haversack.run.source import found
from haversack.run.tuning import candidates, remember, remembered, tune
from haversack.targets.contract import SHELF

ONE, TWO, FOUR = Setting(1), Setting(2), Setting(4)


@pytest.mark.parametrize(
    "cores, wanted",
    [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (4, [1, 2, 4]), (6, [1, 2, 4, 6]), (16, [1, 2, 4, 8, 16])],
)
def test_candidates_are_powers_of_two_and_all_cores(cores, wanted):
    assert [one.threads for one in candidates(cores)] == wanted
    both = candidates(cores, ("builtin",))
    assert [str(one) for one in both[len(wanted) :]] == [
        str(Setting(count, "builtin")) for count in dict.fromkeys((1, cores))
    ]


class Session:
    """Stands for a runtime whose speed is known: each call takes the time that a clock is moved by."""

    def __init__(self, world, setting):
        self.world, self.setting = world, setting
        world.open += 1
        world.most = max(world.most, world.open)

    def run(self, inputs):
        self.world.calls.append(self.setting)
        self.world.now += self.world.seconds(self.setting)
        return {"scores": np.full((1, 4), self.world.gives.get(self.setting, 1.0), np.float32)}

    def close(self):
        self.world.open -= 1


class World:
    """Runtimes on a clock of their own."""

    def __init__(self, speeds):
        self.now, self.open, self.most, self.calls = 0.0, 0, 0, []
        self.speeds, self.gives, self.noise = speeds, {}, np.random.default_rng(0)
        self.spread = 0.01

    def seconds(self, setting):
        return self.speeds[setting] * float(np.exp(self.noise.normal(0, self.spread)))


@pytest.fixture
def source(piece, write_bundle, tmp_path):
    """A variant whose golden vectors are answered by ones."""
    from haversack.base import digest
    from haversack.tools.data import golden_file
    from haversack.tools.data.golden_file import Golden

    one = piece("onnxruntime")
    vectors = [Golden({"image": np.zeros((1, 1, 8, 8), np.float32)}, {"scores": np.ones((1, 4), np.float32)})]
    golden_file.write(vectors, one.left.folder / "ones.npz")
    told = ("ones.npz", digest.of_file(one.left.folder / "ones.npz"))
    folder = write_bundle(tmp_path / "ones", [replace(one, left=replace(one.left, golden=told))])
    return found(folder, "onnxruntime")


@pytest.fixture
def world(monkeypatch):
    """A function that puts a world in the runtime's place."""

    def make(speeds):
        made = World(speeds)
        kind = SHELF.type_of("onnxruntime")
        opens = lambda self, path, options, threads: Session(made, Setting(threads, options.get("delegate", "")))
        monkeypatch.setattr(kind, "_open", opens)
        monkeypatch.setattr(tuning.time, "perf_counter", lambda: made.now)
        monkeypatch.setattr(tuning.time, "monotonic", lambda: made.now)
        return made

    return make


def chosen(source, world, speeds, **more):
    made = world(speeds)
    return tune(source, noise.differ, settings=tuple(speeds), **more), made


def test_the_quickest_is_taken_where_it_is_worth_it(source, world):
    result, _ = chosen(source, world, {ONE: 0.010, TWO: 0.006, FOUR: 0.004})
    assert result.setting == FOUR
    assert [one.setting for one in result.trials] == [ONE, TWO, FOUR]
    assert result.trials[2].median_ms == pytest.approx(4, rel=0.1)
    assert "quicker than 2 threads" in result.trials[2].why


def test_equal_ones_are_not_ranked(source, world):
    result, _ = chosen(source, world, {ONE: 0.010, TWO: 0.010, FOUR: 0.010})
    assert result.setting == ONE
    assert "does not differ from 1 thread beyond the noise" in result.trials[1].why


def test_a_little_quicker_is_not_worth_twice_the_threads(source, world):
    result, _ = chosen(source, world, {ONE: 0.0100, TWO: 0.0097})
    assert result.setting == ONE
    assert "it is not 5% quicker than 1 thread" in result.trials[1].why


def test_more_threads_may_be_slower(source, world):
    result, _ = chosen(source, world, {ONE: 0.010, TWO: 0.006, FOUR: 0.012})
    assert result.setting == TWO


def test_noise_alone_seldom_moves_it():
    moved = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        times = {setting: list(np.exp(random.normal(0, 0.03, 9))) for setting in (ONE, TWO, FOUR)}
        moved += tuning._best([ONE, TWO, FOUR], times, noise.differ)[0] != ONE
    assert moved <= 2


def test_one_is_open_at_a_time_and_turns_are_taken(source, world):
    _, made = chosen(source, world, {ONE: 0.010, TWO: 0.010}, rounds=3)
    assert (made.open, made.most) == (0, 1)
    turns = [made.calls[0]]
    for setting in made.calls:
        if setting != turns[-1]:
            turns.append(setting)
    assert turns == [ONE, TWO, ONE, TWO]  # every second round goes backwards


def test_time_is_bounded_and_then_nothing_is_decided(source, world):
    result, made = chosen(source, world, {ONE: 1.0, TWO: 0.5}, seconds=10)
    assert made.now < 40
    assert result.setting == ONE
    assert "beyond the noise" in result.trials[1].why


def test_a_setting_that_gives_other_answers_is_out(source, world):
    made = world({ONE: 0.010, TWO: 0.001})
    made.gives[TWO] = 2.0
    result = tune(source, noise.differ, settings=(ONE, TWO))
    assert result.setting == ONE
    assert result.trials[1].median_ms == 0
    assert "it gives other answers than the bundle promises: 4 of 4 values differ" in result.trials[1].why
    made.gives[ONE] = 3.0
    with pytest.raises(VerificationError, match="no setting gives the bundle's answers"):
        tune(source, noise.differ, settings=(ONE, TWO))


def test_within_the_bundles_tolerance_it_is_not(source, world):
    made = world({ONE: 0.010, TWO: 0.001})
    made.gives[TWO] = 1.004
    loose = replace(source.variant, exact=False, tolerance=0.01)
    manifest = replace(source.manifest, variants=(loose,))
    result = tune(replace(source, bundle=replace(source.bundle, manifest=manifest)), noise.differ, settings=(ONE, TWO))
    assert result.setting == TWO


@pytest.mark.parametrize("target", ["onnxruntime", "litert"])
def test_real_runtimes(piece, write_bundle, target, tmp_path):
    """On this machine's cores: a setting that gives the bundle's bits, and no kernels that round otherwise.

    LiteRT's own kernels do on the golden vectors of most small networks: on those of this one.
    """
    source, events = found(write_bundle(tmp_path / "third", [piece(target, 3)]), target), []
    result = tune(source, noise.differ, rounds=3, sink=events.append)
    assert result.setting in candidates(tuning.cores())
    whys = {str(one.setting): one.why for one in result.trials}
    if target == "litert":
        assert "it gives other answers" in whys["1 thread, builtin"]
    assert all(one.median_ms > 0 for one in result.trials if not one.setting.delegate)
    assert events[-1].text == f"{target} takes {result.setting}: {whys[str(result.setting)]}"


def test_without_golden_vectors_nothing_is_measured(source):
    files = tuple(file for file in source.manifest.files if file.role != "golden")
    bare = replace(source, bundle=replace(source.bundle, manifest=replace(source.manifest, files=files)))
    with pytest.raises(VerificationError, match="no golden vectors to measure with"):
        tune(bare, noise.differ)


class TestMemory:
    @pytest.fixture
    def result(self):
        trials = (tuning.Trial(ONE, 2.0, "it is slow"), tuning.Trial(TWO, 1.0, "it is quick"))
        from haversack.base import versions
        from haversack.targets.onnxruntime import cpu

        return tuning.Tuned(TWO, trials, versions.installed("onnxruntime"), cpu.features())

    def test_it_is_remembered(self, bundle, result, tmp_path):
        source = found(bundle, "onnxruntime")
        assert remembered(tmp_path / "home", source) is None
        remember(tmp_path / "home", source, result)
        assert remembered(tmp_path / "home", source) == result
        assert opening.setting_of(source, home=tmp_path / "home") == TWO
        assert opening.setting_of(source, threads=1, home=tmp_path / "home") == ONE
        assert opening.setting_of(source) == ONE
        with opening.open_model(bundle, target="onnxruntime", home=tmp_path / "home") as model:
            assert model.setting == TWO

    def test_for_that_artefact_only(self, bundle, newer, result, tmp_path):
        remember(tmp_path, found(bundle, "onnxruntime"), result)
        assert remembered(tmp_path, found(newer, "onnxruntime")) is None
        assert remembered(tmp_path, found(bundle, "litert")) is None

    @pytest.mark.parametrize("other", [{"runtime": "1.0.0"}, {"cpu": ("x86_64", "avx512f")}])
    def test_another_runtime_or_processor_forgets_it(self, bundle, result, tmp_path, other):
        source = found(bundle, "onnxruntime")
        remember(tmp_path, source, replace(result, **other))
        assert remembered(tmp_path, source) is None

    def test_another_number_of_cores_forgets_it(self, bundle, result, tmp_path, monkeypatch):
        source = found(bundle, "onnxruntime")
        remember(tmp_path, source, result)
        monkeypatch.setattr(tuning, "cores", lambda: 99)
        assert remembered(tmp_path, source) is None

    @pytest.mark.parametrize("data", [b"", b"{", b'{"format":9}\n', b'{"format":1,"kept":[{"key":1}]}\n', b"\xff"])
    def test_a_damaged_file_only_costs_another_measurement(self, bundle, result, tmp_path, data):
        source = found(bundle, "onnxruntime")
        (tmp_path / tuning.FILE).write_bytes(data)
        assert remembered(tmp_path, source) is None
        remember(tmp_path, source, result)
        assert remembered(tmp_path, source) == result

    def test_the_oldest_are_forgotten(self, bundle, newer, result, tmp_path, monkeypatch):
        monkeypatch.setattr(tuning, "_MOST", 2)
        sources = [found(bundle, "onnxruntime"), found(bundle, "litert"), found(newer, "onnxruntime")]
        for source in sources:
            remember(tmp_path, source, result)
        kept = json.loads((tmp_path / tuning.FILE).read_text())["kept"]
        assert [one["key"] for one in kept] == [tuning._key(source) for source in sources[1:]]

    def test_a_home_that_cannot_be_written(self, bundle, result, tmp_path):
        (tmp_path / "home").write_text("a file")
        with pytest.raises(EnvironmentFault):
            remember(tmp_path / "home", found(bundle, "onnxruntime"), result)

    def test_it_is_measured_once(self, bundle, result, tmp_path, monkeypatch):
        source, count = found(bundle, "onnxruntime"), []
        monkeypatch.setattr(tuning, "tune", lambda *some, **named: count.append(1) or result)
        assert tuned(source, tmp_path) == tuned(source, tmp_path) == result
        assert count == [1]
        tuned(source, tmp_path, again=True)
        assert count == [1, 1]
