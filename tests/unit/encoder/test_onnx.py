from __future__ import annotations

import logging
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest

from encoder import BundleReport, EncoderError, ProviderError, check_bundle, open_bundle, read_bundle
from encoder.sessions import half_session, open_session


@pytest.fixture(scope="module")
def encoder():
    return open_bundle(provider="cpu")


def test_a_student_understands(encoder):
    wine, merlot, train = encoder.encode(["red wine", "a bottle of Merlot", "railway timetable"])
    assert wine @ merlot > wine @ train + 0.2


@pytest.mark.parametrize(
    "text", ["", "   ", "\x00", "\ud800", "a\udfffb", "x" * 1_000_000, "🍷" * 5000, "\u202e", "红酒", "\n\t", "a" * 5000 + " b"]
)  # fmt: skip
def test_every_text_has_a_unit_vector(encoder, text: str):
    vector = encoder.encode([text])
    assert vector.shape == (1, encoder.dimension)
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-4)


def test_the_empty_text_is_that_of_white_space(encoder):
    empty, blank = encoder.encode(["", " \n "])
    np.testing.assert_array_equal(empty, blank)


def test_no_texts_give_no_rows(encoder):
    assert encoder.encode([]).shape == (0, encoder.dimension)


def test_a_vector_depends_on_its_text_alone(encoder):
    texts = [f"{word} number {number} " * (1 + number % 7) for number, word in enumerate(["lamp", "soup", "jazz"] * 30)]
    fresh, threaded = open_bundle(provider="cpu"), open_bundle(provider="cpu", threads=2)
    together, backwards = encoder.encode(texts), fresh.encode(texts[::-1])[::-1]
    np.testing.assert_array_equal(together, backwards)
    np.testing.assert_array_equal(together, threaded.encode(texts))
    np.testing.assert_array_equal(together[7], open_bundle(provider="cpu").encode([texts[7]])[0])


def test_a_remembered_text_is_the_same_vector(encoder):
    first = encoder.encode(["a text to remember"])
    encoder.encode([f"filler {number}" for number in range(50)])
    np.testing.assert_array_equal(first, encoder.encode(["a text to remember"]))


def test_memory_is_bounded():
    bundle = read_bundle()
    from encoder import OnnxEncoder

    small = OnnxEncoder(bundle, open_session(bundle, "cpu", 1), remembered=3)
    assert small.encode([str(number) for number in range(10)]).shape == (10, small.dimension)
    assert len(small._known) == 3


def test_shorter_vectors_keep_what_is_near(encoder):
    texts = ["red wine", "white wine", "jazz album", "rock album", "night train", "garden lamp"]
    short = open_bundle(provider="cpu", dimension=128)
    assert short.dimension == 128
    assert short.name == f"{encoder.name}-128"
    vectors = short.encode(texts)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[4]


@pytest.mark.parametrize("dimension", [0, -1, 200, 385])
def test_a_dimension_that_the_bundle_has_not_is_refused(dimension: int):
    with pytest.raises(EncoderError, match="choose"):
        open_bundle(provider="cpu", dimension=dimension)


def test_cuda_without_cuda_is_an_error_unless_allowed(caplog, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ProviderError, match="gpu"):
        open_bundle(provider="cuda")
    with caplog.at_level(logging.WARNING):
        assert open_bundle(provider="cuda", allow_cpu=True).provider == "cpu"
    assert "CUDA" in caplog.text


def test_auto_is_quiet_without_a_gpu_runtime_and_loud_with_an_unusable_one(caplog, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert open_bundle().provider == "cpu"
    assert not caplog.records
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setattr("encoder.sessions.half_session", refuse)
    assert open_bundle().provider == "cpu"
    assert "no driver here" in caplog.text


def refuse(*_):
    raise ProviderError("no driver here")


def test_cuda_does_not_plan_attention_anew_for_each_shape(monkeypatch):
    """cuDNN's attention (bit 8 of `sdpa_kernel`) does; the plain kernels (16) must stay, which take any mask."""
    asked = []

    def session(*of):
        asked.append(of[-1])
        raise ProviderError("no card here")

    monkeypatch.setattr("encoder.sessions._session", session)
    with pytest.raises(ProviderError):
        half_session(read_bundle(), ["CUDAExecutionProvider", "CPUExecutionProvider"])
    ((name, options), cpu) = asked[0]
    assert (name, cpu) == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert int(options["sdpa_kernel"]) & (8 | 16) == 16


def test_the_half_precision_graph_agrees_with_the_whole_one():
    bundle = read_bundle()
    texts = [[101, 2417, 4511, 102], [101, 2317, 102], [101, 102], [101, *range(2000, 2126), 102]]
    half = half_session(bundle, ["CPUExecutionProvider"]).run(texts)
    whole = open_session(bundle, "cpu", 1).run(texts)
    assert (half * whole).sum(axis=1).min() > 0.98


def test_padding_changes_little_and_order_nothing():
    session = half_session(read_bundle(), ["CPUExecutionProvider"])
    texts = [[101, *range(2000, 2000 + length), 102] for length in (3, 40, 1, 17, 90)]
    assert session.length_step > 1
    alone = np.concatenate([session.run([text]) for text in texts])
    assert (session.run(texts) * alone).sum(axis=1).min() > 0.999


def test_an_unknown_provider_is_refused():
    with pytest.raises(ProviderError, match="auto, cpu or cuda"):
        open_bundle(provider="tpu")


def test_the_report_tells_name_size_and_speed(encoder):
    report = check_bundle(provider="cpu")
    assert isinstance(report, BundleReport)
    assert report.name == encoder.name
    assert report.milliseconds_for_one > 0
    assert report.texts_per_second > 10


def test_importing_the_package_loads_no_runtime():
    script = "import encoder, sys; sys.exit(any(m.split('.')[0] in {'onnxruntime', 'torch'} for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_golden_texts_still_agree_when_asked_again(encoder):
    assert read_bundle().manifest.golden.cosine <= encoder.agreement() <= 1.0001
