"""A model is called like a function; its release is exchanged under many threads, and no answer is lost or mixed."""

from __future__ import annotations

import threading
import time
from collections import Counter

import numpy as np
import pytest

from haversack.base.errors import UsageError, VerificationError
from haversack.run import loaded as loadeds
from haversack.run.answer import Answer
from haversack.run.guard import Watch
from haversack.run.loaded import Serving
from haversack.run.model import Model
from haversack.run.opening import load, open_model
from haversack.run.pool import Busy
from haversack.run.results import Bounds
from haversack.run.session import Session
from haversack.run.source import found

TARGETS = ["onnxruntime", "litert"]


@pytest.fixture(params=TARGETS)
def target(request):
    return request.param


@pytest.fixture
def model(bundle, target):
    with open_model(bundle, target=target) as opened:
        yield opened


class Graphed:
    """As a tensor of torch that a gradient is asked of."""

    def __array__(self, *_, **__):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")


def truth(folder, target, images):
    """What a release answers to each image: asked one by one, with nothing between."""
    session = Session(found(folder, target))
    answers = [session.run({"image": images[index : index + 1]})["scores"].tobytes() for index in range(len(images))]
    session.close()
    return answers


def test_it_is_called_in_several_ways(model, images):
    wanted = model(images)["scores"]
    assert wanted.shape == (16, 4)
    for answer in (model(image=images), model({"image": images}), model([*images])):
        assert answer["scores"].tobytes() == wanted.tobytes()
    assert np.asarray(model(images)).tobytes() == wanted.tobytes()


def test_what_it_says_of_itself(model, target):
    assert (model.version, model.target, model.labels) == ("1.0.0", target, ("across", "down", "up", "aslant"))
    assert [port.name for port in (*model.inputs, *model.outputs)] == ["image", "scores"]
    assert str(model.setting) == "1 thread"
    assert model.raw == {}


def test_an_answer_has_its_release_labels_and_time(model, images):
    answer = model(images[:2])
    assert (answer.version, answer.cached, len(answer)) == ("1.0.0", False, 1)
    assert answer.milliseconds > 0
    rows = answer.top(2)
    assert len(rows) == 2
    for row, scores in zip(rows, answer["scores"], strict=True):
        assert row[0].index == int(scores.argmax())
        assert row[0].label == model.labels[row[0].index]
        assert row[0].score == float(scores.max()) >= row[1].score


@pytest.mark.parametrize(
    "call, cause",
    [
        (lambda model, x: model(x, x), "there are 2 inputs"),
        (lambda model, x: model(x, image=x), "image is given twice"),
        (lambda model, x: model(picture=x), "picture: the model has no such input"),
        (lambda model, x: model(), "image: it is missing"),
        (lambda model, x: model(np.array([{}])), "image: it is no array of numbers, but of Python objects"),
        (lambda model, x: model([[1.0, 2.0], [3.0]]), "image: it is no array of numbers: setting an array element"),
        (lambda model, x: model(Graphed()), "image: it is no array of numbers: Can't call numpy"),
        (lambda model, x: model({1: x, "picture": x}), "1: the model has no such input"),
        (lambda model, x: model(x[0]), "add the batch, x[None]"),
    ],
)
def test_calls_that_do_not_fit(model, images, call, cause):
    with pytest.raises(UsageError) as caught:
        call(model, images)
    assert cause in str(caught.value)
    assert "give image [n, 1, 8, 8] float32" in str(caught.value)


def test_a_batch_is_answered_in_order(model, images):
    alone = [model(images[index : index + 1])["scores"] for index in range(5)]
    together = model.batch([images[:1], (images[1:2],), {"image": images[2:3]}, images[3:4], images[4:5]])
    assert [one["scores"].tobytes() for one in together] == [one.tobytes() for one in alone]
    assert all(one.version == "1.0.0" for one in together)
    assert model.batch([]) == []


def test_a_closed_model(model, images, bundle, target):
    model.close()
    model.close()
    for act in (lambda: model(images), lambda: model.version, lambda: model.batch([images])):
        with pytest.raises(UsageError, match="the model is closed"):
            act()
    late = load(found(bundle, target))
    with pytest.raises(UsageError, match="the model is closed"):
        model.swap(late)
    assert not late.hold()


def test_more_threads_than_sessions_are_refused(bundle, images, monkeypatch):
    inside, go = threading.Event(), threading.Event()
    run = Session.run

    def slow(self, inputs):
        inside.set()
        assert go.wait(20)
        return run(self, inputs)

    with open_model(bundle, target="litert", serving=Serving(waiting=0)) as model:
        monkeypatch.setattr(Session, "run", slow)
        first = threading.Thread(target=model, args=(images[:1],))
        first.start()
        assert inside.wait(20)
        with pytest.raises(Busy, match="the session is busy"):
            model(images[:1])
        go.set()
        first.join()
        assert model(images[:1]).version == "1.0.0"


class TestSwap:
    def test_calls_from_now_on_go_to_the_new_one(self, bundle, newer, target, images):
        old, new = truth(bundle, target, images[:1]), truth(newer, target, images[:1])
        assert old != new
        with open_model(bundle, target=target) as model:
            assert model(images[:1])["scores"].tobytes() == old[0]
            model.swap(load(found(newer, target)))
            answer = model(images[:1])
            assert (answer.version, answer["scores"].tobytes()) == ("1.1.0", new[0])
            assert model.version == "1.1.0"

    def test_the_old_one_closes_when_its_last_call_ends(self, bundle, newer, target, images, monkeypatch):
        inside, go, closed, answers = threading.Event(), threading.Event(), [], []
        run, close = Session.run, Session.close
        old = load(found(bundle, target))

        def slow(self, inputs):
            if self is old._pool.first:
                inside.set()
                assert go.wait(20)
            return run(self, inputs)

        monkeypatch.setattr(Session, "run", slow)
        monkeypatch.setattr(Session, "close", lambda self: closed.append(self.source.manifest.version) or close(self))
        model = Model(old)
        calling = threading.Thread(target=lambda: answers.append(model(images[:1])))
        calling.start()
        assert inside.wait(20)
        model.swap(load(found(newer, target)))
        assert model(images[:1]).version == "1.1.0"
        assert closed == []
        go.set()
        calling.join()
        assert (answers[0].version, closed) == ("1.0.0", ["1.0.0"])
        model.close()
        assert closed == ["1.0.0", "1.1.0"]

    def test_a_call_that_finds_the_old_one_closed_goes_to_the_new_one(self, bundle, newer, target, images):
        """The exchange happens between reading which release is current and holding it."""
        old, new = load(found(bundle, target)), load(found(newer, target))
        model, hold = Model(old), old.hold

        def late():
            model.swap(new)
            old.hold = hold
            return hold()

        old.hold = late
        assert model(images[:1]).version == "1.1.0"
        model.close()

    def test_who_holds_the_old_one_may_still_begin(self, bundle, newer, target, images):
        """A call has its release, and looks into the cache or preprocesses: the exchange does not close it."""
        old = load(found(bundle, target))
        model = Model(old)
        assert old.hold()
        model.swap(load(found(newer, target)))
        assert old.answers([{"image": images[:1]}])[0].version == "1.0.0"
        old.release()
        assert not old.hold()
        with pytest.raises(UsageError, match="the model is closed"):
            old.answers([{"image": images[:1]}])
        model.close()

    @pytest.mark.parametrize("cached", [False, True])
    def test_a_hundred_threads_through_swaps(self, bundle, newer, target, images, monkeypatch, cached):
        """Every call is answered, by one release as a whole, and all sessions are closed in the end."""
        wanted = {"1.0.0": truth(bundle, target, images), "1.1.0": truth(newer, target, images)}
        assert len({*wanted["1.0.0"], *wanted["1.1.0"]}) > 24
        opened, closed, wrong, seen, go = [], [], [], Counter(), threading.Event()
        begin, close = Session.__init__, Session.close
        monkeypatch.setattr(Session, "__init__", lambda self, *some: opened.append(self) or begin(self, *some))
        monkeypatch.setattr(Session, "close", lambda self: closed.append(self) or close(self))
        results = Bounds("lfu", entries=5) if cached else Bounds(entries=0)
        serving = Serving(sessions=2, waiting=200, wait_seconds=250, results=results)
        sources = [found(bundle, target), found(newer, target)]
        model, done = Model(load(sources[0], serving)), []

        def work(seed):
            random = np.random.default_rng(seed)
            assert go.wait(60)
            for _ in range(12):
                place = int(random.integers(16))
                answer = model(images[place : place + 1])
                seen[answer.version] += 1
                if answer["scores"].tobytes() != wanted[answer.version][place]:
                    wrong.append((place, answer.version))
            done.append(seed)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(100)]
        for thread in threads:
            thread.start()
        go.set()
        for turn in range(1, 9):
            model.swap(load(sources[turn % 2], serving))
            time.sleep(0.002)
        for thread in threads:
            thread.join()
        model.close()
        assert not wrong
        assert (len(done), sum(seen.values())) == (100, 1200)
        assert len(seen) == 2
        assert Counter(map(id, opened)) == Counter(map(id, closed))


class TestResults:
    def test_a_repeated_input_is_not_computed_again(self, bundle, target, images, monkeypatch):
        with open_model(bundle, target=target, serving=Serving(results=Bounds())) as model:
            first = model(images[:1])
            monkeypatch.setattr(Session, "run", lambda self, inputs: pytest.fail("it was computed"))
            again = model(images[:1].copy())
            assert (first.cached, again.cached) == (False, True)
            assert again["scores"].tobytes() == first["scores"].tobytes()
            again["scores"][:] = 0
            assert model(images[:1])["scores"].tobytes() == first["scores"].tobytes()

    def test_another_release_answers_anew(self, bundle, newer, target, images):
        serving = Serving(results=Bounds())
        with open_model(bundle, target=target, serving=serving) as model:
            model(images[:1])
            model.swap(load(found(newer, target), serving))
            answer = model(images[:1])
            assert (answer.version, answer.cached) == ("1.1.0", False)

    def test_of_a_batch_only_the_new_ones_are_computed(self, bundle, target, images, monkeypatch):
        with open_model(bundle, target=target, serving=Serving(results=Bounds())) as model:
            model(images[1:2])
            rows = []
            run = Session.run
            monkeypatch.setattr(
                Session, "run", lambda self, inputs: rows.append(len(inputs["image"])) or run(self, inputs)
            )
            answers = model.batch([images[index : index + 1] for index in range(3)])
            assert [answer.cached for answer in answers] == [False, True, False]
            assert sum(rows) == 2


class TestGuarded:
    @pytest.fixture
    def spoiled(self, monkeypatch):
        """Versions whose sessions give NaN."""
        versions = set()
        run = Session.run

        def spoil(self, inputs):
            outputs = run(self, inputs)
            bad = self.source.manifest.version in versions
            return {name: np.full_like(array, np.nan) if bad else array for name, array in outputs.items()}

        monkeypatch.setattr(Session, "run", spoil)
        return versions

    def test_the_release_before_answers(self, bundle, newer, target, images, spoiled):
        events, openings = [], []

        def previous():
            openings.append(1)
            return load(found(bundle, target))

        serving = Serving(watch=Watch(faults=2, pause_seconds=0.05), results=Bounds())
        with Model(load(found(newer, target), serving, previous=previous, sink=events.append)) as model:
            assert (model(images[:1]).version, openings) == ("1.1.0", [])
            spoiled.add("1.1.0")
            for index in range(1, 4):
                answer = model(images[index : index + 1])
                assert answer.version == "1.0.0"
                assert answer["scores"].tobytes() == truth(bundle, target, images[index : index + 1])[0]
            assert openings == [1]
            assert [event.data["guard"] for event in events if "guard" in event.data] == ["fault", "fault", "tripped"]
            spoiled.clear()
            time.sleep(0.06)
            answer = model(images[1:2])
            assert (answer.version, answer.cached) == ("1.1.0", False)  # no answer in its place was kept
            assert events[-1].data["guard"] == "recovered"
        assert not model_is_open(model)

    def test_the_release_before_closes_too(self, bundle, newer, target, images, spoiled, monkeypatch):
        closed, close = [], Session.close
        monkeypatch.setattr(Session, "close", lambda self: closed.append(self.source.manifest.version) or close(self))
        spoiled.add("1.1.0")
        model = Model(load(found(newer, target), previous=lambda: load(found(bundle, target))))
        model(images[:1])
        model.close()
        assert sorted(closed) == ["1.0.0", "1.1.0"]

    def test_where_none_is_before_the_fault_is_raised(self, bundle, target, images, spoiled):
        spoiled.add("1.0.0")
        with open_model(bundle, target=target) as model, pytest.raises(VerificationError, match="NaN or infinite"):
            model(images[:1])

    @pytest.mark.parametrize("wait_seconds", [0.0, 60.0])
    def test_one_that_hangs_for_good_is_set_aside(self, bundle, newer, target, images, monkeypatch, wait_seconds):
        go, events, run = threading.Event(), [], Session.run

        def hang(self, inputs):
            if self.source.manifest.version == "1.1.0":
                assert go.wait(60)
            return run(self, inputs)

        monkeypatch.setattr(Session, "run", hang)
        serving = Serving(watch=Watch(limit_seconds=0.1, pause_seconds=0.2), wait_seconds=wait_seconds)
        opens = {"previous": lambda: load(found(bundle, target)), "sink": events.append}
        with Model(load(found(newer, target), serving, **opens)) as model:
            began = time.monotonic()
            assert [model(images[:1]).version for _ in range(4)] == ["1.0.0"] * 4
            assert time.monotonic() - began < 20
            told = [event for event in events if "guard" in event.data]
            assert [event.data["guard"] for event in told] == ["fault", "fault", "fault", "tripped"]
            assert "the call that has the session took longer than the limit" in told[2].text
            go.set()
            time.sleep(0.3)
            assert model(images[:1]).version == "1.1.0"  # it came back to life

    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    def test_what_is_not_finite_already_is_its_callers_fault(self, bundle, newer, target, images, monkeypatch, bad):
        """The files hold integers, which hide it: the session lets it through as a float model does."""
        events, opened, run = [], [], Session.run

        def through(self, inputs):
            outputs = run(self, inputs)
            worse = not all(np.isfinite(array).all() for array in inputs.values())
            return {name: np.full_like(array, bad) if worse else array for name, array in outputs.items()}

        monkeypatch.setattr(Session, "run", through)
        opens = {"previous": lambda: opened.append(1) or load(found(bundle, target)), "sink": events.append}
        serving = Serving(watch=Watch(faults=1), results=Bounds(entries=5))
        with Model(load(found(newer, target), serving, **opens)) as model:
            wrong = images[:1].copy()
            wrong[0, 0, 1, :3] = bad
            calls = {"image": lambda: model(wrong), "image of sample 1": lambda: model.batch([images[:1], wrong])}
            for place, call in calls.items():
                with pytest.raises(UsageError, match="the inputs are not finite, and so the answer is not") as caught:
                    call()
                (fault,) = caught.value.faults
                assert (fault.where, fault.cause) == (place, "3 of its 64 values are NaN or infinite")
            model(images[:1])  # its answer is kept: of the next two the second alone is computed
            with pytest.raises(UsageError) as caught:
                model.batch([images[:1], wrong])
            assert [fault.where for fault in caught.value.faults] == ["image of sample 1"]
            assert model(images[:1]).version == "1.1.0"
            assert [event for event in events if "guard" in event.data] == opened == []

    def test_a_call_that_hangs_is_answered_in_time_and_closed_late(self, bundle, newer, target, images, monkeypatch):
        go, closed = threading.Event(), []
        run, close = Session.run, Session.close

        def hang(self, inputs):
            if self.source.manifest.version == "1.1.0":
                assert go.wait(60)
            return run(self, inputs)

        monkeypatch.setattr(Session, "run", hang)
        monkeypatch.setattr(Session, "close", lambda self: closed.append(self.source.manifest.version) or close(self))
        serving = Serving(watch=Watch(limit_seconds=0.1), wait_seconds=0.1)
        model = Model(load(found(newer, target), serving, previous=lambda: load(found(bundle, target))))
        assert model(images[:1]).version == "1.0.0"
        assert model(images[:1]).version == "1.0.0"  # its only session still runs
        model.close()
        assert closed == ["1.0.0"]
        go.set()
        until = time.monotonic() + 20
        while len(closed) < 2 and time.monotonic() < until:
            time.sleep(0.001)
        assert closed == ["1.0.0", "1.1.0"]


def model_is_open(model):
    try:
        return bool(model.version)
    except UsageError:
        return False


class TestRaw:
    STEPS = ({"op": "scale"}, {"op": "to_chw"})

    @pytest.fixture
    def raw(self, piece, write_bundle, target, tmp_path):
        return write_bundle(tmp_path / "raw", [piece(target)], preprocess=self.STEPS)

    @pytest.fixture
    def pictures(self):
        return np.random.default_rng(2).integers(0, 256, (3, 8, 8, 1)).astype(np.uint8)

    def test_it_takes_what_the_first_operation_takes(self, raw, bundle, target, pictures):
        with open_model(raw, target=target) as model, open_model(bundle, target=target) as plain:
            assert model.raw == {"image": (4,)}, "scale takes any, to_chw four"
            ready = np.ascontiguousarray((pictures.astype(np.float32) / 255).transpose(0, 3, 1, 2))
            np.testing.assert_allclose(model(pictures)["scores"], plain(ready)["scores"], atol=0.05)
            assert len({row.tobytes() for row in model(pictures)["scores"]}) == 3

    def test_what_it_cannot_take(self, raw, target, pictures):
        with open_model(raw, target=target) as model:
            with pytest.raises(UsageError) as caught:
                model(pictures[0, 0])
            assert "preprocess[0]" in str(caught.value) or "preprocess[1]" in str(caught.value)
            with pytest.raises(UsageError, match="inputs are missing: image"):
                model(picture=pictures)

    def test_preprocessing_has_a_cache_of_its_own(self, raw, target, pictures, monkeypatch):
        with open_model(raw, target=target, serving=Serving(preprocessed=Bounds(entries=2))) as model:
            first = model(pictures)["scores"]
            pipeline = type(model._current.preprocess.pipeline)
            monkeypatch.setattr(pipeline, "alone", lambda *some: pytest.fail("it was done again"))
            assert model(pictures.copy())["scores"].tobytes() == first.tobytes()
            assert not model(pictures).cached
            cache = model._current.preprocess.cache
            assert (cache.hits, len(cache)) == (2, 1)
        assert len(cache) == 0

    def test_pictures_of_several_sizes_in_one_batch(self, piece, write_bundle, target, tmp_path):
        steps = ({"op": "resize", "short_side": 8}, {"op": "center_crop", "height": 8, "width": 8}, *self.STEPS)
        folder = write_bundle(tmp_path / "sized", [piece(target)], preprocess=steps)
        pictures = [np.full((1, size, size + 1, 1), 40 * size % 256, np.uint8) for size in (9, 12, 17)]
        with open_model(folder, target=target) as model:
            together = model.batch(pictures)
            alone = [model(picture)["scores"] for picture in pictures]
        assert [one["scores"].tobytes() for one in together] == [one.tobytes() for one in alone]


class TestAnswer:
    def answer(self, labels=(), **outputs):
        return Answer(outputs, "1.0.0", labels)

    def test_equal_scores_go_by_number(self):
        rows = self.answer(y=np.array([[1, 3, 3, 0]])).top(9)
        assert [one.index for one in rows[0]] == [1, 2, 0, 3]
        assert [one.label for one in rows[0]] == ["1", "2", "0", "3"]

    def test_labels_tell_which_output_is_meant(self):
        answer = self.answer(("a", "b"), box=np.zeros((1, 4)), y=np.array([[0.0, 2.0]]))
        assert answer.classified
        assert answer.top(1)[0][0].label == "b"
        with pytest.raises(UsageError, match="'box' has no scores of classes"):
            answer.top(1, "box")

    def test_outputs_that_are_no_scores(self):
        answer = self.answer(a=np.zeros((1, 4)), b=np.zeros((1, 4)))
        assert not answer.classified
        with pytest.raises(UsageError, match="2 outputs can be scores"):
            answer.top()
        assert len(answer.top(2, "a")[0]) == 2
        with pytest.raises(UsageError, match="0 outputs can be scores"):
            self.answer(a=np.zeros((1, 2, 2))).top()
        with pytest.raises(UsageError):
            answer.top(0)

    def test_the_only_array(self):
        assert self.answer(y=np.ones(2)).array.tolist() == [1, 1]
        assert np.asarray(self.answer(y=np.ones(2)), dtype=np.float32).dtype == np.float32
        with pytest.raises(UsageError, match="ask for one by name: a, b"):
            _ = self.answer(a=np.ones(1), b=np.ones(1)).array

    def test_it_is_a_mapping(self):
        answer = self.answer(y=np.ones(2))
        assert [*answer] == ["y"]
        assert "y" in answer
        assert "x" not in answer
        with pytest.raises(UsageError, match="ask for y"):
            _ = answer["x"]


def test_all_sessions_are_opened_before_a_slot_is_given_up(bundle, target, monkeypatch, tmp_path, images):
    """The folder may hold another release as soon as the model is open."""
    import shutil

    folder = tmp_path / "slot"
    shutil.copytree(bundle, folder)
    model = open_model(folder, target=target, serving=Serving(sessions=3))
    shutil.rmtree(folder)
    answers = [model(images[:1])["scores"].tobytes() for _ in range(4)]
    assert len({*answers}) == 1
    model.close()


def test_one_session_is_opened_where_calls_may_overlap(bundle, target, monkeypatch):
    count = []
    monkeypatch.setattr(loadeds, "Session", lambda *some: count.append(1) or Session(*some))
    load(found(bundle, target), Serving(sessions=3)).retire()
    assert len(count) == (1 if target == "onnxruntime" else 3)
