"""One door to all steering vectors: files told apart, sites at other layers, and modes."""

from pathlib import Path

import pytest
import torch

from interp.errors import CliffscopeError
from interp.tensor_files import write_tensors
from interventions.directions.direction import Direction
from interventions.steering.along_direction import AblateDirection, AddDirection, ClampDirection
from interventions.steering.transport import GaussianMap
from interventions.steering.transport_activations import TransportActivations
from interventions.steering.vectors import MODES, load_vector, sites_of, steering
from probes.linear import LinearProbe
from tests.interventions.steering.test_along_direction import SITE, direction_of
from tests.interventions.steering.test_transport import map_of


def test_files_are_told_apart(tmp_path: Path) -> None:
    direction, made = direction_of(2), map_of()
    direction.save(tmp_path / "direction.safetensors")
    made.save(tmp_path / "map.safetensors")
    found = load_vector(tmp_path / "direction.safetensors")
    assert isinstance(found, Direction) and torch.equal(found.basis, direction.basis)
    found = load_vector(tmp_path / "map.safetensors")
    assert isinstance(found, GaussianMap) and found.k == made.k


def test_other_files_are_named(tmp_path: Path) -> None:
    LinearProbe(torch.ones(4), 0.0).save(tmp_path / "probe.safetensors")
    write_tensors(tmp_path / "bare.safetensors", {"weight": torch.ones(3)}, {})
    (tmp_path / "text.safetensors").write_text("no")
    for name, message in {
        "probe": r"probe\.safetensors: no steering vector: its format is 'cliffscope\.probe', expected "
        r"'cliffscope\.direction' or 'cliffscope\.transport'; make one by cliffscope steer fit",
        "bare": "bare.safetensors: no steering vector: its format is 'missing'",
        "text": "text.safetensors: not a safetensors file",
        "none": "none.safetensors: no such file",
    }.items():
        with pytest.raises(CliffscopeError, match=message):
            load_vector(tmp_path / f"{name}.safetensors")


def test_the_vectors_site_at_other_layers() -> None:
    assert sites_of(direction_of(), [0, -1]) == ("blocks.0.hook_resid_post", "blocks.-1.hook_resid_post")
    assert sites_of(map_of(site="blocks.1.hook_mlp_out"), range(2)) == (
        "blocks.0.hook_mlp_out",
        "blocks.1.hook_mlp_out",
    )
    assert sites_of(direction_of(site=None), [2]) == ("blocks.2.hook_resid_post",)
    with pytest.raises(CliffscopeError, match=r"ln_final\.hook_out is in no layer"):
        sites_of(direction_of(site="ln_final.hook_out"), [2])


def test_a_mode_and_a_dose_make_an_intervention() -> None:
    direction = direction_of(positive=torch.tensor([3.0]), negative=torch.tensor([-1.0]))
    added = steering(direction, -2.0, sites=["blocks.0.hook_resid_post"], scope="from-edge", units="norm")
    assert isinstance(added, AddDirection)
    assert (added.alpha, added.units, added.sites, added.scope) == (
        -2.0,
        "norm",
        ["blocks.0.hook_resid_post"],
        "from-edge",
    )
    ablated = steering(direction, mode="ablate", scope="thinking", window=(0.8, 1.0), thinking_tokens=9)
    assert isinstance(ablated, AblateDirection)
    assert (ablated.strength, ablated.window, ablated.thinking_tokens) == (1.0, (0.8, 1.0), 9)
    half = steering(direction, 0.5, "ablate")
    assert isinstance(half, AblateDirection) and half.strength == 0.5
    moved = steering(map_of(), 0.5)
    assert isinstance(moved, TransportActivations) and moved.strength == 0.5
    assert steering(map_of(), mode="transport").strength == 1.0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("alpha", "units", "target"), [(0.0, "scale", -1), (1.0, "scale", 3), (0.5, "scale", 1), (7.0, "absolute", 7)]
)
def test_a_clamp_goes_from_one_class_mean_to_the_other(alpha: float, units: str, target: float) -> None:
    direction = direction_of(positive=torch.tensor([3.0]), negative=torch.tensor([-1.0]))
    clamp = steering(direction, alpha, "clamp", units=units)
    assert isinstance(clamp, ClampDirection)
    assert torch.as_tensor(clamp.target).flatten().tolist() == [target]


def test_what_does_not_go_together() -> None:
    direction, made = direction_of(), map_of()
    cases = {
        "mode 'replace': expected one of add, ablate, clamp, transport": (direction, 1.0, "replace"),
        "mode 'transport' does not go with a direction; use mode add, ablate or clamp": (direction, 1.0, "transport"),
        "mode 'add' does not go with a transport map; use mode transport": (made, 1.0, "add"),
        "mode 'add' needs an alpha": (direction, None, "add"),
        "mode 'clamp' needs an alpha": (direction, None, "clamp"),
        "does not say where its classes lie; give the coordinate itself, in absolute units": (direction, 1.0, "clamp"),
        "units 'norm': a coordinate is clamped in units of scale or absolute": (
            direction,
            1.0,
            "clamp",
            None,
            "all",
            "norm",
        ),
    }
    for message, arguments in cases.items():
        with pytest.raises(CliffscopeError, match=message):
            steering(*arguments)
    assert MODES == ("add", "ablate", "clamp", "transport") and SITE == direction.site
