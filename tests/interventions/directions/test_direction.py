"""A direction: its parts, its control, and its file."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from interp.errors import CliffscopeError
from interventions.directions import Direction
from probes.linear import LinearProbe


def vectors(k: int, d: int = 12, seed: int = 0) -> torch.Tensor:
    return torch.randn(k, d, generator=torch.Generator().manual_seed(seed))


def full(k: int = 2) -> Direction:
    return Direction.of(
        vectors(k),
        scale=1.7,
        kind="refusal",
        method="mean-difference",
        positive=torch.arange(k) + 0.3,
        negative=-torch.arange(k) * 0.7,
        model="a model",
        fingerprint={"d_model": "12"},
        layer=3,
        site="blocks.3.hook_resid_post",
        position="close:-1",
        training={"n_positive": 5, "auroc": 0.9, "nothing": None},
    )


def test_unit_norm_and_scale_are_kept_apart() -> None:
    given = vectors(1)[0] * 3
    direction = Direction.of(given)
    assert direction.k == 1 and direction.d_model == 12
    torch.testing.assert_close(direction.vector, given / given.norm())
    assert direction.scale == pytest.approx(float(given.norm()))
    assert Direction.of(given, scale=0.5).scale == 0.5


@pytest.mark.parametrize("k", [1, 3, 12])
def test_coordinates_and_projection_are_those_of_least_squares(k: int) -> None:
    direction = Direction.of(vectors(k))
    h = vectors(7, seed=1).reshape(7, 1, 12)
    expected = torch.linalg.lstsq(vectors(k).T.double(), h[:, 0].T.double()).solution
    onto = (vectors(k).T.double() @ expected).T.float()
    assert direction.coordinates(h).shape == (7, 1, k) and direction.coordinates(h.bfloat16()).dtype == torch.float32
    torch.testing.assert_close(direction.project(h)[:, 0], onto, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(direction.coordinates(h)[:, 0] @ direction.basis, onto, atol=1e-5, rtol=1e-5)


def test_the_rows_keep_the_order_and_the_side_of_the_vectors() -> None:
    given = -vectors(3)
    basis = Direction.of(given).basis
    torch.testing.assert_close(basis[0], given[0] / given[0].norm())
    assert bool(((basis * given).sum(-1) > 0).all())
    assert float((basis[1] @ given[0]).abs()) < 1e-5  # the later ones give way


@pytest.mark.parametrize("k", [1, 2])
def test_what_is_saved_is_what_is_loaded(k: int, tmp_path: Path) -> None:
    path, again = tmp_path / "v.safetensors", tmp_path / "w.safetensors"
    direction = full(k)
    direction.save(path)
    loaded = Direction.load(path)
    for name in ("basis", "positive", "negative"):
        assert torch.equal(getattr(loaded, name), getattr(direction, name)), name
    for name in ("scale", "kind", "method", "model", "fingerprint", "layer", "site", "position", "training"):
        assert getattr(loaded, name) == getattr(direction, name), name
    loaded.save(again)
    assert path.read_bytes() == again.read_bytes()
    with safe_open(str(path), "pt") as file:  # readable without Cliffscope
        assert json.loads(file.metadata()["training"])["n_positive"] == 5
        assert file.metadata()["format"] == "cliffscope.direction"


def test_a_bare_direction_round_trips(tmp_path: Path) -> None:
    Direction.of(vectors(1)[0]).save(tmp_path / "v.safetensors")
    loaded = Direction.load(tmp_path / "v.safetensors")
    assert loaded.positive is None and loaded.layer is None and loaded.kind == loaded.method == "given"


def test_a_random_control_has_the_same_size_and_place_and_no_other_thing_in_common() -> None:
    direction = full(2)
    control = direction.random_like(3)
    assert (control.k, control.scale, control.site, control.layer) == (2, direction.scale, direction.site, 3)
    assert control.kind == control.method == "random" and control.positive is None
    assert torch.equal(control.basis, direction.random_like(3).basis)
    assert not torch.allclose(control.basis, direction.random_like(4).basis)
    wide = Direction.of(vectors(1, 4096)[0])
    cosines = torch.stack([wide.random_like(seed).vector for seed in range(50)]) @ wide.vector
    # Over random unit vectors the cosine has mean 0 and standard deviation 1/√d.
    assert float(cosines.abs().max()) < 5 / 64 and 0.5 < float(cosines.std() * 64) < 2


def test_a_direction_made_for_another_model_is_refused() -> None:
    full().check_model({"d_model": "12", "n_layers": "4"}, "mine")
    with pytest.raises(CliffscopeError, match=r"made for a model, not for mine \(d_model 12 there, 16 here\)"):
        full().check_model({"d_model": "16"}, "mine")
    with pytest.raises(CliffscopeError, match="of width 12, and mine has width 16; fit one for this model"):
        Direction.of(vectors(1)).check_model({"d_model": "16"}, "mine")


def test_a_width_that_does_not_fit_is_refused() -> None:
    with pytest.raises(CliffscopeError, match="made for activations of width 12, found 11; is it another model's"):
        full().coordinates(torch.zeros(3, 11))


def test_a_subspace_has_no_vector() -> None:
    with pytest.raises(CliffscopeError, match="a subspace of 2 dimensions has no one vector; use its basis"):
        _ = full(2).vector


BAD_VECTORS = {
    "dependent": (torch.ones(2, 12), "2 vectors are linearly dependent"),
    "nan": (torch.full((12,), float("nan")), "expected finite vectors"),
    "none": (torch.zeros(0, 12), "expected finite vectors"),
    "too many": (vectors(3, 2), "linearly dependent"),
    "zero": (torch.zeros(12), "a vector is zero"),
}


@pytest.mark.parametrize("case", sorted(BAD_VECTORS))
def test_bad_vectors_are_refused(case: str) -> None:
    given, message = BAD_VECTORS[case]
    with pytest.raises(CliffscopeError, match=message):
        Direction.of(given)


def test_bad_parts_are_refused() -> None:
    unit = torch.eye(12)[:1]
    with pytest.raises(CliffscopeError, match=r"rows of the basis must be orthonormal \(off by 3\)"):
        Direction(2 * unit)
    with pytest.raises(CliffscopeError, match="the scale must be a finite number above 0, found -1"):
        Direction(unit, -1.0)
    with pytest.raises(CliffscopeError, match="expected 1 finite positive coordinates"):
        Direction(unit, positive=torch.tensor([float("inf")]))


def test_files_that_are_no_direction_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.safetensors"
    with pytest.raises(CliffscopeError, match=r"v\.safetensors: no such file"):
        Direction.load(path)
    LinearProbe(torch.ones(12), 0.0).save(path)
    with pytest.raises(CliffscopeError, match=r"not a direction \(format 'cliffscope.probe'"):
        Direction.load(path)
    header = {"format": "cliffscope.direction", "version": "2"}
    save_file({"basis": torch.eye(12)[:1]}, str(path), header)
    with pytest.raises(CliffscopeError, match="direction format version '2'; this Cliffscope reads version '1'"):
        Direction.load(path)
    save_file({"basis": torch.eye(12)[:1]}, str(path), header | {"version": "1"})
    with pytest.raises(CliffscopeError, match=r"expected basis \[k, d_model\] and scale \[\], found basis \[1, 12\]"):
        Direction.load(path)
    save_file({"basis": torch.ones(1, 12), "scale": torch.tensor(1.0)}, str(path), header | {"version": "1"})
    with pytest.raises(CliffscopeError, match=r"v\.safetensors: direction: the rows of the basis must be orthonormal"):
        Direction.load(path)
    whole = {"basis": torch.eye(12)[:1], "scale": torch.tensor(1.0)}
    save_file(whole, str(path), header | {"version": "1", "training": "{"})
    with pytest.raises(CliffscopeError, match="the direction's metadata cannot be read"):
        Direction.load(path)


def test_facts_that_json_cannot_hold_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CliffscopeError, match="JSON cannot hold the training facts"):
        full().at(training={"bad": {1, 2}}).save(tmp_path / "v.safetensors")
    assert not list(tmp_path.iterdir())
