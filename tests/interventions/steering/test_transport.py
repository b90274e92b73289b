"""Maps fitted from samples: held-out activations, the subspace and what is outside it, the file, and a model."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from interp import HookedModel, Transcript
from interp.errors import CliffscopeError
from interp.models.intervening import NothingChangedWarning
from interp.tensor_files import read_tensors, write_tensors
from interventions.steering.optimal_transport import optimal_map
from interventions.steering.transport import GaussianMap
from interventions.steering.transport_activations import TransportActivations
from tests.architectures import random_model
from tests.interventions.steering.test_along_direction import ARCHITECTURES, SITE, WIDTH, model_of, read
from tests.interventions.steering.test_optimal_transport import covariance, vector
from tests.interventions.test_head_ablation import texts

F64 = torch.float64


def sample(n: int, seed: int, mean: Tensor, sigma: Tensor) -> Tensor:
    drawn = torch.randn(n, len(mean), generator=torch.Generator().manual_seed(seed), dtype=F64)
    return mean + drawn @ torch.linalg.cholesky(sigma).T


def two_classes(d: int, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Gaussians of other means and covariances, most of whose variance lies in few dimensions."""
    spread = torch.linspace(3, 0.5, d, dtype=F64)
    sigmas = [covariance(d, number) * spread * spread[:, None] for number in (1, 2)]
    means = [vector(d, number) * 2 for number in (1, 2)]
    source, target = (sample(n, seed + i, means[i], sigmas[i]) for i in range(2))
    return source, target


@pytest.mark.parametrize(("components", "shrinkage"), [(3, "auto"), (3, 0.0), (8, "auto"), (8, 0.0)])
def test_held_out_activations_get_the_targets_mean_and_covariance(components: int, shrinkage: float | str) -> None:
    """Within sampling error: the distance left is one that two samples of the target have among themselves."""
    source, target = two_classes(8, 600, seed=0)
    made = GaussianMap.fit(source, target, components=components, shrinkage=shrinkage)
    held_source, held_target = two_classes(8, 600, seed=100)
    moved = made(held_source)
    inside = made.basis

    def gaps(x: Tensor, y: Tensor) -> tuple[float, float]:
        mean = float((x.mean(0) - y.mean(0)).norm())
        return mean, float((torch.cov((x @ inside.T).T) - torch.cov((y @ inside.T).T)).norm())

    rng = np.random.default_rng(0)
    # The map was fitted on as many as are held out, so its own error and that of the comparison add up.
    null = [gaps(target[rng.integers(0, 600, 600)], held_target[rng.integers(0, 600, 600)]) for _ in range(300)]
    limits = np.quantile(np.asarray(null), 0.99, axis=0)
    before, after = gaps(held_source, held_target), gaps(moved, held_target)
    assert after[0] < limits[0] and after[1] < limits[1]
    assert before[0] > 5 * limits[0] and before[1] > 2 * limits[1]


def test_what_is_orthogonal_to_the_subspace_is_only_shifted() -> None:
    source, target = two_classes(8, 200, seed=0)
    difference = target.mean(0) - source.mean(0)
    for shift in ("full", "subspace"):
        made = GaussianMap.fit(source, target, components=2, shift=shift)
        outside = torch.eye(8, dtype=F64) - made.basis.T @ made.basis
        moved = (made(source) - source) @ outside
        expected = difference @ outside if shift == "full" else torch.zeros(8, dtype=F64)
        torch.testing.assert_close(moved, expected.expand(200, 8), atol=1e-10, rtol=0)
        landed = made(source).mean(0)
        torch.testing.assert_close(landed @ made.basis.T, target.mean(0) @ made.basis.T, atol=1e-10, rtol=0)
        assert (float((landed - target.mean(0)).norm()) < 1e-10) == (shift == "full")
    share = made.training["mean_difference_in_subspace"]
    assert share == pytest.approx(float((difference @ made.basis.T).norm() / difference.norm()))
    assert 0 < share < 1


def test_the_fit_is_the_closed_form_of_the_samples_moments() -> None:
    source, target = two_classes(5, 100, seed=3)
    made = GaussianMap.fit(source, target, components=5, shrinkage=0.0)
    whole = GaussianMap.between(source.mean(0), torch.cov(source.T), target.mean(0), torch.cov(target.T))
    torch.testing.assert_close(made(source), whole(source), atol=1e-8, rtol=0)
    assert made.training["variance_in_subspace"] == pytest.approx(1)
    assert made.training["n_source"] == made.training["n_target"] == 100
    cost = float((made(source) - source).square().sum(-1).mean())
    assert made.training["distance_in_subspace"] == pytest.approx(cost**0.5, rel=0.02)


def test_a_class_is_moved_onto_itself_by_nothing() -> None:
    source, _ = two_classes(6, 50, seed=1)
    for shrinkage in ("auto", 0.0, 0.5):
        made = GaussianMap.fit(source, source, components=4, shrinkage=shrinkage)
        torch.testing.assert_close(made(source), source, atol=1e-9, rtol=0)


def test_few_samples_are_a_shift_at_full_shrinkage_and_singular_at_none() -> None:
    source, target = (part[:6] for part in two_classes(8, 6, seed=2))
    made = GaussianMap.fit(source, target, components=7, shrinkage=1.0)
    torch.testing.assert_close(made.matrix, torch.eye(7, dtype=F64), atol=1e-9, rtol=0)
    torch.testing.assert_close(made(source), source + target.mean(0) - source.mean(0), atol=1e-8, rtol=0)
    with pytest.raises(CliffscopeError, match="singular in these 7 dimensions"):
        GaussianMap.fit(source, target, components=7, shrinkage=0.0)
    auto = GaussianMap.fit(source, target, components=7)
    assert auto.training["shrinkage"] == pytest.approx([7 / 13, 7 / 13])
    assert float(torch.linalg.eigvalsh(auto.matrix)[-1]) < 10


def test_there_and_back() -> None:
    source, target = two_classes(8, 100, seed=0)
    for shift in ("full", "subspace"):
        made = GaussianMap.fit(source, target, components=3, shift=shift, kind="refusal", site=SITE)
        back = made.inverse()
        torch.testing.assert_close(back(made(source)), source, atol=1e-9, rtol=0)
        torch.testing.assert_close(made(back(target)), target, atol=1e-9, rtol=0)
        assert back.training["inverse"] and not back.inverse().training["inverse"]
        assert (back.kind, back.site) == ("refusal", SITE)
        again = back.inverse()
        torch.testing.assert_close(again(source), made(source), atol=1e-9, rtol=0)


def test_a_random_map_moves_as_far_elsewhere() -> None:
    source, target = two_classes(8, 100, seed=0)
    for components, shift in ((3, "full"), (3, "subspace"), (8, "full")):
        made = GaussianMap.fit(source, target, components=components, shift=shift)
        other = made.random_like(5)
        assert torch.equal(other.matrix, made.matrix) and other.kind == "random"
        assert float(other.shift.norm()) == pytest.approx(float(made.shift.norm()), rel=1e-9)
        inside = [float((m.shift @ m.basis.T).norm()) for m in (made, other)]
        assert inside[0] == pytest.approx(inside[1], rel=1e-9)
        torch.testing.assert_close(other.basis, made.random_like(5).basis)
        assert not torch.allclose(other.basis, made.random_like(6).basis, atol=0.1)
    assert other.training == {"seed": 5, "control_of": "given by transport"}


def saved(tmp_path: Path) -> tuple[GaussianMap, Path]:
    source, target = two_classes(8, 100, seed=0)
    place = {"model": "m", "fingerprint": {"d_model": "8"}, "layer": 2, "site": SITE, "position": "close:-1"}
    made = GaussianMap.fit(source.float(), target.float(), components=3, kind="refusal").at(
        **place, training={"contrast": "refused-complied"}
    )
    made.save(tmp_path / "map.safetensors")
    return made, tmp_path / "map.safetensors"


def test_the_file_holds_all_of_it_in_float32(tmp_path: Path) -> None:
    made, path = saved(tmp_path)
    found = GaussianMap.load(path)
    for name in ("kind", "model", "fingerprint", "layer", "site", "position"):
        assert getattr(found, name) == getattr(made, name)
    assert found.training == made.training and found.training["contrast"] == "refused-complied"
    for name in ("basis", "matrix", "mean", "shift"):
        assert torch.equal(getattr(found, name), getattr(made, name).float().double())
    x, _ = two_classes(8, 50, seed=9)
    assert (found(x) - made(x)).norm() < 1e-6 * made(x).norm()
    found.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    _, metadata = read_tensors(path)
    assert (metadata["format"], metadata["version"]) == ("cliffscope.transport", "1")
    assert json.loads(metadata["training"])["n_source"] == 100


def test_damaged_files(tmp_path: Path) -> None:
    _, path = saved(tmp_path)
    tensors, metadata = read_tensors(path)
    broken = tmp_path / "broken.safetensors"
    cases = [
        (tensors, {**metadata, "format": "cliffscope.probe"}, "not a transport map .format 'cliffscope.probe'"),
        (tensors, {**metadata, "version": "2"}, "transport map format version '2'; this Cliffscope reads version '1'"),
        (tensors, {**metadata, "training": "{"}, "metadata cannot be read"),
        ({**tensors, "extra": torch.ones(1)}, metadata, r"expected basis \[k, d_model\].*found basis \[3, 8\], extra"),
        ({**tensors, "matrix": -tensors["matrix"]}, metadata, "broken.* must be symmetric and positive definite"),
        ({**tensors, "matrix": torch.triu(torch.ones(3, 3))}, metadata, "must be symmetric and positive definite"),
        ({**tensors, "basis": tensors["basis"] * 2}, metadata, "rows of the basis must be orthonormal"),
        (
            {**tensors, "mean": torch.ones(7)},
            metadata,
            r"found basis \[3, 8\], matrix \[3, 3\], mean \[7\], shift \[8\]",
        ),
        ({**tensors, "shift": torch.full((8,), torch.nan)}, metadata, "8 NaN or infinite values in 'shift'"),
    ]
    for parts, facts, message in cases:
        write_tensors(broken, parts, facts)
        with pytest.raises(CliffscopeError, match=message):
            GaussianMap.load(broken)
    with pytest.raises(CliffscopeError, match="no such file"):
        GaussianMap.load(tmp_path / "none.safetensors")


def test_samples_that_determine_no_map() -> None:
    source, target = two_classes(8, 20, seed=0)
    with pytest.raises(CliffscopeError, match="expected 2 or more source activations, found 1"):
        GaussianMap.fit(source[:1], target)
    with pytest.raises(
        CliffscopeError, match="expected 1 to 8, in which these 40 activations of width 8 vary, found 9"
    ):
        GaussianMap.fit(source, target, components=9)
    with pytest.raises(CliffscopeError, match=r"expected 1 to 3, .* found 4"):
        GaussianMap.fit(source[:2], target[:2], components=4)
    with pytest.raises(CliffscopeError, match="found 0"):
        GaussianMap.fit(source, target, components=0)
    with pytest.raises(CliffscopeError, match="activations: 1 NaN or infinite value, the first in rollout 3"):
        GaussianMap.fit(source.index_fill(0, torch.tensor([3]), torch.nan)[:, :1], target[:, :1], components=1)
    with pytest.raises(CliffscopeError, match="shift 'none': expected full or subspace"):
        GaussianMap.fit(source, target, shift="none")
    for shrinkage in (-0.1, 1.5, float("nan"), "none"):
        with pytest.raises(CliffscopeError, match="shrinkage: expected auto, or a number from 0 to 1"):
            GaussianMap.fit(source, target, shrinkage=shrinkage)


def map_of(seed: int = 0, **facts: object) -> GaussianMap:
    source, target = two_classes(WIDTH, 100, seed)
    return GaussianMap.fit(source, target, components=4, **{"site": SITE, **facts})


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_model_is_changed_by_the_map_in_its_scope(name: str, strength: float, side: str) -> None:
    model, transcripts, made = model_of(name), texts([3, 0]), map_of()
    change = TransportActivations(made, strength, scope="close")
    plain, changed = (read(model, transcripts, *some, side=side) for some in ((), (change,)))
    for before, after in zip(plain, changed, strict=True):
        expected = before + strength * (made(before.double()).float() - before)
        torch.testing.assert_close(after[7:9], expected[7:9], atol=2e-5, rtol=1e-5)
        assert torch.equal(after[:7], before[:7]) and torch.equal(after[9:], before[9:])


def test_activations_like_the_source_become_like_the_target_in_the_model() -> None:
    """Fitted on the model's own activations at the edge of two kinds of texts."""
    model = model_of("qwen3")
    kinds = [texts([1] * 80, seed) for seed in (3, 4)]
    # The second kind of text ends its thinking by another token.
    kinds[1] = [replace(text, input_ids=(*text.input_ids[:8], 5, *text.input_ids[9:])) for text in kinds[1]]
    source, target = (model.capture(kind, [SITE], ["close:-1"])[SITE][:, 0] for kind in kinds)
    made = GaussianMap.fit(source, target, components=6, shrinkage=0.0, site=SITE)
    with model.intervene(TransportActivations(made, scope="edge")):
        moved = model.capture(kinds[0], [SITE], ["close:-1"])[SITE][:, 0]
    torch.testing.assert_close(moved.mean(0), target.mean(0), atol=1e-4, rtol=1e-4)
    inside = made.basis.float().T
    torch.testing.assert_close(torch.cov((moved @ inside).T), torch.cov((target @ inside).T), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3"])
def test_generation_is_the_same_with_and_without_the_cache_alone_and_together(name: str) -> None:
    model, change = HookedModel(random_model(name), name=name), TransportActivations(map_of(), 3.0)
    model.hf.generation_config.eos_token_id = None
    prompts = [Transcript.from_ids(f"p{n}", range(5, 9 + n)) for n in range(3)]
    with model.intervene(change):
        together = model.generate(prompts, max_new_tokens=6)
        assert model.generate(prompts, max_new_tokens=6, use_cache=False) == together
        assert [model.generate([prompt], max_new_tokens=6)[0] for prompt in prompts] == together
    assert model.generate(prompts, max_new_tokens=6) != together


def test_what_does_not_fit_is_refused() -> None:
    model = model_of("llama")
    with pytest.raises(CliffscopeError, match=r"transport map: made for m, not for llama \(d_vocab 7 there, 96 here\)"):
        with model.intervene(TransportActivations(map_of(model="m", fingerprint={"d_vocab": "7"}))):
            pass
    narrow = GaussianMap.fit(*two_classes(8, 30, 0), components=2, site=SITE)
    with pytest.raises(
        CliffscopeError, match="a vector of width 8 does not fit llama, whose activations have width 32"
    ):
        with model.intervene(TransportActivations(narrow)):
            pass
    with pytest.raises(CliffscopeError, match="made for activations of width 8, found 32"):
        narrow(torch.ones(2, 32))
    with pytest.raises(CliffscopeError, match="holds what heads write"):
        with model.intervene(TransportActivations(map_of(), sites=["blocks.0.attn.hook_z"])):
            pass
    with pytest.raises(CliffscopeError, match="strength: expected a finite number, found nan"):
        TransportActivations(map_of(), float("nan"))


def test_the_map_is_the_cheapest_in_its_subspace() -> None:
    source, target = two_classes(8, 400, seed=0)
    made = GaussianMap.fit(source, target, components=4, shrinkage=0.0)
    sigma = [torch.cov((part @ made.basis.T).T) for part in (source, target)]
    torch.testing.assert_close(made.matrix, optimal_map(*sigma), atol=1e-8, rtol=0)


def test_no_strength_changes_nothing_and_says_so() -> None:
    model = model_of("llama")
    with pytest.warns(NothingChangedWarning), model.intervene(TransportActivations(map_of(), 0.0)):
        model.capture(texts([1]), [SITE], [0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with model.intervene(TransportActivations(map_of(), 0.1)):
            model.capture(texts([1]), [SITE], [0])
