import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from interp.errors import CliffscopeError
from probes.linear import LinearProbe
from tests.probes.planted_activations import planted


@pytest.mark.parametrize("method", ["logistic", "mean-difference"])
@pytest.mark.parametrize(("n", "d"), [(400, 32), (200, 512)])
def test_a_planted_direction_is_recovered(method, n, d):
    activations, labels, direction = planted(n, d, gap=4.0)
    probe = LinearProbe.fit(activations, labels, method=method)
    assert probe.direction.norm() == pytest.approx(1.0)
    assert float(probe.direction @ direction) > (0.9 if d < n else 0.6)  # d > n leaves room for chance
    fresh, truth, _ = planted(n, d, gap=4.0)
    assert ((probe.score(fresh) > 0.5).long() == truth).float().mean() > 0.95


@pytest.mark.parametrize(("n", "d"), [(100, 20), (60, 200)])
def test_the_weights_in_raw_coordinates_agree_with_a_scikit_learn_pipeline(n, d):
    activations, labels, _ = planted(n, d, share=0.3)
    activations = activations * torch.logspace(-2, 2, d)  # features of very different scales
    probe = LinearProbe.fit(activations, labels, C=0.1)
    scaler = StandardScaler().fit(activations.double().numpy())
    reference = LogisticRegression(C=0.1, class_weight="balanced", tol=1e-10, solver="newton-cholesky")
    reference.fit(scaler.transform(activations.double().numpy()), labels.numpy())
    expected = torch.as_tensor(reference.coef_[0] / scaler.scale_)
    error = (probe.weight - expected) * torch.as_tensor(scaler.scale_)
    assert error.norm() / np.linalg.norm(reference.coef_[0]) < 1e-3
    logits = reference.decision_function(scaler.transform(activations.double().numpy()))
    np.testing.assert_allclose(probe.logit(activations).numpy(), logits, atol=2e-3)


def test_constant_features_do_not_blow_up():
    activations, labels, _ = planted(60, 10)
    activations[:, 3] = 1234.5
    activations[:, 7] = 0.0
    for method in ("logistic", "mean-difference"):
        probe = LinearProbe.fit(activations, labels, method=method)
        assert probe.weight[[3, 7]].abs().max() < 1e-6
        assert torch.isfinite(probe.score(activations)).all()


def test_the_strength_grows_with_the_signal():
    clear, labels, _ = planted(200, 50, gap=6.0)
    nothing, _, _ = planted(200, 50, gap=0.0)
    strong, weak = (LinearProbe.fit(h, labels).training["C"] for h in (clear, nothing))
    assert strong > weak and weak <= 1e-2


@pytest.mark.parametrize("method", ["logistic", "mean-difference"])
def test_scores_are_probabilities(method):
    from interp.statistics import expected_calibration_error

    def unit_gap(seed):
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(4000) % 2
        return torch.randn(4000, 3, generator=generator) + labels[:, None], labels

    probe = LinearProbe.fit(*unit_gap(0), method=method)
    fresh, truth = unit_gap(1)
    assert expected_calibration_error(probe.score(fresh).numpy(), truth.numpy()) < 0.03


def test_a_mean_difference_probe_has_its_threshold_at_the_midpoint():
    activations, labels, _ = planted(80, 12, share=0.25)
    probe = LinearProbe.fit(activations, labels, method="mean-difference")
    means = [activations[labels == label].mean(0) for label in (0, 1)]
    torch.testing.assert_close(probe.score((means[0] + means[1]) / 2), torch.tensor(0.5), atol=1e-4, rtol=0)
    difference = means[1] - means[0]
    torch.testing.assert_close(probe.direction, difference / difference.norm(), atol=1e-5, rtol=0)


def test_scores_keep_leading_axes_and_are_computed_in_float32():
    activations, labels, _ = planted(40, 16)
    probe = LinearProbe.fit(activations, labels)
    block = activations[:24].reshape(2, 3, 4, 16)
    assert probe.score(block).shape == (2, 3, 4)
    torch.testing.assert_close(probe.score(block).flatten(), probe.score(activations[:24]))
    half = activations.bfloat16()
    assert probe.score(half).dtype == torch.float32
    torch.testing.assert_close(probe.logit(half), half.float() @ probe.weight + probe.bias)
    with pytest.raises(CliffscopeError, match="width 16, found 15"):
        probe.score(activations[:, :15])


def test_a_fit_repeats_and_the_order_of_rollouts_does_not_matter():
    activations, labels, _ = planted(60, 20, gap=1.5)
    prompts = [f"p{i // 2}" for i in range(60)]
    probe = LinearProbe.fit(activations, labels, prompts=prompts)
    again = LinearProbe.fit(activations, labels, prompts=prompts)
    assert torch.equal(probe.weight, again.weight) and probe.bias == again.bias
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    moved = LinearProbe.fit(activations[order], labels[order], prompts=[prompts[i] for i in order])
    torch.testing.assert_close(moved.weight, probe.weight, rtol=1e-4, atol=1e-6)


def test_bad_input_is_named_in_one_line():
    activations, labels, _ = planted(20, 6)
    broken = activations.clone()
    broken[7, 2] = float("nan")
    broken[9, 3] = float("inf")
    ids = [f"rollout-{i}" for i in range(20)]
    for call, message in [
        (lambda: LinearProbe.fit(broken, labels, ids=ids), "2 NaN or infinite values, the first in rollout rollout-7"),
        (lambda: LinearProbe.fit(activations, torch.ones(20)), "all 20 rollouts are of class 1"),
        (lambda: LinearProbe.fit(activations[:7], [0, 1] * 3 + [0]), "at least 8 rollouts, found 7"),
        (lambda: LinearProbe.fit(activations, labels[:-1]), "expected 20"),
        (lambda: LinearProbe.fit(activations, labels + 1), "only 0 and 1"),
        (lambda: LinearProbe.fit(activations, labels, C=-1.0), "positive number or 'cv'"),
        (lambda: LinearProbe.fit(activations, labels, method="svm"), "'svm'"),
        (lambda: LinearProbe.fit(torch.zeros(20, 4), labels, method="mean-difference"), "same mean"),
        (lambda: LinearProbe(torch.zeros(3), 0.0).direction, "weight is zero"),
        (lambda: LinearProbe(torch.tensor([1.0, float("nan")]), 0.0), "NaN"),
        (lambda: LinearProbe(torch.zeros(0), 0.0), "shape"),
    ]:
        with pytest.raises(CliffscopeError, match=message) as raised:
            call()
        assert "\n" not in str(raised.value)


def test_a_probe_refuses_another_model_and_says_what_differs():
    probe = LinearProbe(torch.ones(4), 0.0, model="small", fingerprint={"d_model": "4", "layers": "6"})
    probe.check_model({"d_model": "4", "layers": "6", "more": "x"}, "small")
    with pytest.raises(CliffscopeError, match=r"made for small, not for big \(layers 6 there, 8 here\)"):
        probe.check_model({"d_model": "4", "layers": "8"}, "big")
    LinearProbe(torch.ones(4), 0.0).check_model({"d_model": "8"}, "any")


words = st.text(max_size=12)
json_values = st.one_of(st.integers(-(10**6), 10**6), words, st.booleans(), st.lists(st.integers(0, 9), max_size=3))


@given(
    weight=st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20),
    bias=st.floats(-1e6, 1e6, width=32),
    model=st.none() | words,
    layer=st.none() | st.integers(0, 100),
    position=st.none() | words,
    fingerprint=st.dictionaries(words, words, max_size=3),
    training=st.dictionaries(words, json_values, max_size=4),
    method=st.sampled_from(["logistic", "mean-difference"]),
)
@settings(max_examples=50, deadline=None)
def test_what_is_saved_is_read_back(tmp_path_factory, weight, bias, **fields):
    path = tmp_path_factory.mktemp("probe") / "probe.safetensors"
    probe = LinearProbe(torch.tensor(weight), bias, site="blocks.3.hook_resid_post", **fields)
    probe.save(path)
    again = LinearProbe.load(path)
    assert torch.equal(again.weight, probe.weight) and again.bias == probe.bias
    assert again.site == "blocks.3.hook_resid_post"
    for name, value in fields.items():
        assert getattr(again, name) == value, name


def test_the_bytes_of_the_file(tmp_path):
    path = tmp_path / "probe.safetensors"
    probe = LinearProbe(torch.tensor([1.0, -2.0]), 0.5, model="m", layer=3, position="close:-1")
    probe.at(training={"C": 0.1, "auroc_low": float("nan")}, fingerprint={"d_model": "2"}).save(path)
    header = (
        '{"__metadata__":{"fingerprint":"{\\"d_model\\": \\"2\\"}","format":"cliffscope.probe","layer":"3",'
        '"method":"logistic","model":"m","position":"close:-1",'
        '"training":"{\\"C\\": 0.1, \\"auroc_low\\": null}","version":"1"},'
        '"bias":{"dtype":"F32","shape":[],"data_offsets":[0,4]},'
        '"weight":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}'
    )
    header += " " * (-len(header) % 8)
    data = bytes.fromhex("0000003f" + "0000803f" + "000000c0")
    assert path.read_bytes() == len(header).to_bytes(8, "little") + header.encode() + data
    with safe_open(path, framework="pt") as file:  # the library itself reads it
        assert file.get_tensor("weight").tolist() == [1.0, -2.0]
        assert json.loads(file.metadata()["training"])["C"] == 0.1


GOOD = {"format": "cliffscope.probe", "version": "1", "method": "logistic"}


def saved(path, tensors=None, metadata=GOOD):
    save_file(tensors or {"weight": torch.ones(3), "bias": torch.tensor(0.0)}, path, metadata)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_bytes(b""), "not a safetensors file"),
        (lambda path: path.write_bytes(pickle.dumps({"weight": [1.0]})), "not a safetensors file"),
        (lambda path: torch.save({"weight": torch.ones(3)}, path), "not a safetensors file"),
        (lambda path: saved(path, metadata=None), "not a probe"),
        (lambda path: saved(path, metadata={**GOOD, "format": "cliffscope.mask"}), "cliffscope.mask"),
        (lambda path: saved(path, metadata={**GOOD, "version": "2"}), "version '2'"),
        (lambda path: saved(path, metadata={**GOOD, "method": "svm"}), "method 'svm'"),
        (lambda path: saved(path, metadata={**GOOD, "layer": "deep"}), "metadata cannot be read"),
        (lambda path: saved(path, metadata={**GOOD, "training": "{"}), "metadata cannot be read"),
        (lambda path: saved(path, metadata={**GOOD, "training": "[1]"}), "JSON objects"),
        (lambda path: saved(path, {"weight": torch.ones(3)}), r"expected weight \[d_model\] and bias"),
        (lambda path: saved(path, {"weight": torch.ones(3, 1), "bias": torch.tensor(0.0)}), "expected weight"),
        (lambda path: saved(path, {"weight": torch.ones(3), "bias": torch.zeros(1)}), "expected weight"),
        (
            lambda path: saved(path, {"weight": torch.tensor([1, torch.nan]), "bias": torch.tensor(0.0)}),
            "1 NaN or infinite values in 'weight'",
        ),
    ],
)
def test_a_file_that_is_no_probe_is_refused_in_one_line(tmp_path, write, message):
    path = tmp_path / "probe.safetensors"
    write(path)
    with pytest.raises(CliffscopeError, match=message) as raised:
        LinearProbe.load(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "probe.safetensors"
    LinearProbe(torch.ones(50), 0.0).save(path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CliffscopeError, match="not a safetensors file"):
        LinearProbe.load(path)


def test_facts_that_json_cannot_hold_are_refused_and_nothing_is_written(tmp_path):
    path = tmp_path / "probe.safetensors"
    with pytest.raises(CliffscopeError, match="training facts"):
        LinearProbe(torch.ones(2), 0.0, training={"x": object()}).save(path)
    assert not list(tmp_path.iterdir())
