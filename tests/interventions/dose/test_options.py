"""What a sweep tries, its controls, and what it refuses before anything is measured."""

import math
from typing import Any

import pytest
import torch

from interp.errors import CliffscopeError
from interp.models.token_context import TokenContext
from interventions.directions.direction import Direction
from interventions.dose import DoseOptions, n_cells
from interventions.dose.options import Cell, cells
from interventions.dose.vector import control, default_mode, in_force, vector_facts
from interventions.steering.transport import GaussianMap
from tests.circuits.material import organism


def direction(k: int = 1, **facts: Any) -> Direction:
    return Direction.of(torch.randn(k, 16, generator=torch.Generator().manual_seed(3)), scale=2.5, **facts)


def a_map() -> GaussianMap:
    shift = torch.zeros(16)
    shift[3] = 7.0
    return GaussianMap(torch.eye(16)[:2], torch.eye(2), torch.zeros(16), shift, site="blocks.1.hook_resid_post")


def test_cells_come_in_order_the_unsteered_model_first_and_controls_last() -> None:
    options = DoseOptions(layers=(1, 2), alphas=(-1, 1), controls=2)
    made = list(cells(options))
    assert len(made) == n_cells(options) == 13
    assert made[0] == Cell("unsteered")
    assert [(cell.layer, cell.alpha) for cell in made[1:5]] == [(1, -1.0), (1, 1.0), (2, -1.0), (2, 1.0)]
    assert [(cell.set, cell.draw) for cell in made[1::4]] == [("vector", None), ("random", 0), ("random", 1)]


def test_a_dose_of_nothing_is_not_measured_twice_unless_it_is_a_coordinate() -> None:
    assert DoseOptions(layers=(1,), alphas=(-1, 0, 1)).alphas == (-1.0, 1.0)
    assert DoseOptions(layers=(1,), alphas=(-1, 0, 1), mode="clamp").alphas == (-1.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"alphas": (math.nan,)}, "α must be a finite number, found nan"),
        ({"alphas": (0,)}, "no α other than 0"),
        ({"alphas": ()}, "no α other than 0"),
        ({"layers": ()}, "no layers"),
        ({"layers": (1, 1)}, "the same layer is given twice"),
        ({"alphas": (1, 1.0)}, "the same α is given twice"),
        ({"controls": -1}, "must be 0 or more, found -1"),
        ({"scope": "everywhere"}, "scope 'everywhere': expected one of all, edge"),
    ],
)
def test_what_cannot_be_measured_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(CliffscopeError, match=says):
        DoseOptions(**{"layers": (1,), "alphas": (1.0,), **options})


def test_a_control_has_the_same_norm_and_another_direction() -> None:
    model = organism("cliff")
    d_model, tokens = model.d_model, TokenContext(torch.arange(4)[None])
    value = torch.randn(1, 4, d_model)
    options = DoseOptions(layers=(1,), alphas=(2.0,), seed=11)
    vector = Direction.of(torch.ones(d_model), scale=2.5)
    steps = [
        (change(value, tokens) - value)[0, 0]
        for cell in cells(options)
        for intervention in in_force(vector, cell, options)
        for change in intervention.changes(model).values()
    ]
    norms = torch.stack(steps).norm(dim=-1)
    torch.testing.assert_close(norms, torch.full((3,), 2.0 * 2.5), atol=1e-4, rtol=0)
    cosines = torch.nn.functional.cosine_similarity(steps[0], torch.stack(steps[1:]), dim=-1).abs()
    assert float(cosines.max()) < 0.5 and not torch.equal(steps[1], steps[2])


def test_a_control_can_be_clamped_and_stands_for_a_subspace() -> None:
    vector = direction(2, positive=torch.tensor([1.0, 2.0]), negative=torch.tensor([0.0, 0.5]))
    made = control(vector, 1)
    assert made.k == 2 and torch.equal(made.positive, vector.positive) and torch.equal(made.negative, vector.negative)
    assert torch.equal(control(vector, 1).basis, made.basis) and not torch.equal(control(vector, 2).basis, made.basis)
    for mode in ("add", "clamp"):
        options = DoseOptions(layers=(1,), alphas=(1.0,), mode=mode)
        assert len([change for cell in cells(options) for change in in_force(vector, cell, options)]) == 3


def test_the_control_of_a_map_is_as_long_as_its_shift_and_is_added() -> None:
    options = DoseOptions(layers=(1,), alphas=(1.0,), controls=1)
    assert default_mode(a_map()) == "transport" and default_mode(direction()) == "add"
    assert control(a_map(), 0).scale == 7.0
    kinds = [type(change).__name__ for cell in cells(options) for change in in_force(a_map(), cell, options)]
    assert kinds == ["TransportActivations", "AddDirection"]


def test_a_vector_is_known_by_its_numbers() -> None:
    same, other = vector_facts(direction()), vector_facts(direction(kind="refusal"))
    assert same["sha256"] == other["sha256"] and other["kind"] == "refusal"
    scaled = Direction(direction().basis, scale=2.6)
    assert len({vector_facts(vector)["sha256"] for vector in (direction(), scaled, direction(2), a_map())}) == 4
