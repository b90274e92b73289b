"""Interchange of subspaces: its formula, its places, and what it does to answers."""

import pytest
import torch
from torch import Tensor

from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from interp.models.hooks import hook
from interp.models.intervening import NothingChangedWarning
from interp.models.sites import Site, resid_post
from interp.rollouts.model_generator import ModelGenerator
from interp.rollouts.prompts import Prompt
from interp.transcripts import Transcript
from interventions.behaviour import answer
from interventions.directions.direction import Direction
from interventions.subspace import InterchangeSubspace, interchanged
from tests.architectures import CONFIGS, random_model
from tests.circuits.material import organism, organism_rollouts
from tests.interventions.subspace.material import at, difference, groups

WIDTH = 32


def transcript(length: int, seed: int) -> Transcript:
    """A text that ends at its edge."""
    labels = ["template"] * 2 + ["thinking"] * (length - 5) + ["close"] * 3
    ids = torch.randint(3, 96, (length,), generator=torch.Generator().manual_seed(seed)).tolist()
    return Transcript(f"r{seed}", tuple(ids), ("",) * length, tuple(labels), 2, "closed")


TEXTS = [transcript(length, seed) for seed, length in enumerate([12, 24, 17])]


def random_direction(k: int, site: str, width: int = WIDTH) -> Direction:
    return Direction.of(torch.randn(k, width, generator=torch.Generator().manual_seed(k)), site=site)


def some(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_coordinates_are_the_sources_and_the_rest_is_the_bases() -> None:
    base, source, direction = some(5, WIDTH), some(5, WIDTH, seed=1), random_direction(3, resid_post(1))
    new = interchanged(base, source, direction.basis)
    assert new.shape == base.shape
    torch.testing.assert_close(direction.coordinates(new), direction.coordinates(source))
    torch.testing.assert_close(new - direction.project(new), base - direction.project(base))
    # By R = [basis; the rest], as the paper writes it: the first k coordinates of the source, the others of the base.
    whole = torch.linalg.qr(torch.cat([direction.basis, some(WIDTH - 3, WIDTH, seed=2)]).T).Q
    rotated = torch.cat([source @ whole[:, :3], base @ whole[:, 3:]], dim=1)
    torch.testing.assert_close(new, rotated @ whole.T, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("basis", ["identity", "rotation", None])
def test_the_whole_space_gives_the_full_value(basis: str | None) -> None:
    base, source = some(5, WIDTH), some(5, WIDTH, seed=1)
    rows = {"identity": torch.eye(WIDTH), "rotation": random_direction(WIDTH, resid_post(1)).basis}.get(str(basis))
    torch.testing.assert_close(interchanged(base, source, rows), source, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(CONFIGS))
@pytest.mark.parametrize("site", ["hook_resid_post", "attn.hook_z", "hook_mlp_out"])
def test_it_is_what_a_hook_of_ones_own_does(name: str, site: str) -> None:
    """One rollout at a time, the edge's value computed by hand."""
    model = HookedModel(random_model(name))
    width = model.n_heads * model.d_head if site == "attn.hook_z" else model.d_model
    place, direction = Site(1, site), random_direction(2, f"blocks.1.{site}", width)
    sources = {text.id: some(1, width, seed=row) for row, text in enumerate(TEXTS)}
    with model.intervene(InterchangeSubspace(direction, sources)):
        found = model.logits(TEXTS, ["close:-1"])[:, 0]
    for row, text in enumerate(TEXTS):

        def put(value: Tensor, text: Transcript = text) -> Tensor:
            new = value.clone()
            own, basis = value[0, -1].flatten(), direction.basis
            given = sources[text.id][0]
            new[0, -1] = (own + basis.T @ (basis @ given - basis @ own)).reshape(value.shape[2:])
            return new

        handle = hook(model.places.find(place), put)
        with torch.no_grad():
            expected = model.hf(torch.tensor([text.input_ids])).logits[0, -1]
        handle.remove()
        torch.testing.assert_close(found[row], expected, atol=2e-5, rtol=1e-4)


def test_only_the_positions_change_each_to_its_own_source() -> None:
    model, direction = HookedModel(random_model("qwen3")), random_direction(2, resid_post(1))
    positions = ["close:-3", 4]
    sources = {text.id: some(2, WIDTH, seed=row) for row, text in enumerate(TEXTS)}
    everywhere = [list(range(len(text))) for text in TEXTS]
    for row, text in enumerate(TEXTS):
        before = model.capture([text], [resid_post(1)], everywhere[row])[resid_post(1)][0]
        with model.intervene(InterchangeSubspace(direction, sources, positions)):
            after = model.capture([text], [resid_post(1)], everywhere[row])[resid_post(1)][0]
        changed = [text.position(position) for position in positions]
        expected = before.clone()
        expected[changed] = interchanged(before[changed], sources[text.id], direction.basis)
        torch.testing.assert_close(after, expected)
        assert set((after != before).any(-1).nonzero().flatten().tolist()) == set(changed)


def test_the_full_value_is_the_whole_space() -> None:
    model = HookedModel(random_model("llama"))
    sources = {text.id: some(1, WIDTH, seed=row) for row, text in enumerate(TEXTS)}
    logits = []
    for direction, whole in (
        (random_direction(WIDTH, resid_post(0)), False),
        (random_direction(1, resid_post(0)), True),
    ):
        with model.intervene(InterchangeSubspace(direction, sources, whole=whole)):
            logits.append(model.logits(TEXTS, ["close:-1"]))
    torch.testing.assert_close(logits[0], logits[1], atol=1e-4, rtol=1e-4)


def test_ones_own_value_changes_nothing() -> None:
    model, direction = HookedModel(random_model("qwen3")), random_direction(4, resid_post(1))
    own = model.capture(TEXTS, [resid_post(1)], ["close:-1"])[resid_post(1)]
    before = model.logits(TEXTS, ["close:-1"])
    with (
        pytest.warns(NothingChangedWarning),
        model.intervene(InterchangeSubspace(direction, dict(zip([t.id for t in TEXTS], own, strict=True)))),
    ):
        after = model.logits(TEXTS, ["close:-1"])
    assert torch.equal(before, after)


def test_the_model_answers_as_the_donor_did() -> None:
    """While generating, too, the edge is found: with a refused rollout's coordinate what was answered is refused."""
    mine, model = groups(3), organism("cliff")
    complied = [rollout for rollout in organism_rollouts("cliff") if rollout.outcome == "complied"][:12]
    donor = mine.means[0][None]
    prompts = [Prompt(rollout.id, rollout.prompt, True, rollout.category, None) for rollout in complied]
    generator = ModelGenerator(model, 200, seed=0)
    along = at(3, difference(3))
    new = answer(generator, prompts, [InterchangeSubspace(along, {rollout.id: donor for rollout in complied})])
    control = InterchangeSubspace(along.random_like(0), {rollout.id: donor for rollout in complied})
    assert sum(rollout.outcome == "refused" for rollout in new) == len(complied)
    assert all(rollout.outcome == "complied" for rollout in answer(generator, prompts, [control]))


@pytest.mark.parametrize(
    ("site", "sources", "message"),
    [
        (resid_post(1), {"r0": some(1, WIDTH)}, "no source is given for rollout 'r1'"),
        (None, {}, "does not say at which site"),
        ("blocks.9.hook_resid_post", {}, "There is no layer 9"),
        ("blocks.1.attn.hook_z", {}, "of width 32, and blocks.1.attn.hook_z of Qwen3ForCausalLM has width 64"),
    ],
)
def test_what_does_not_fit_is_said(site: str | None, sources: dict[str, Tensor], message: str) -> None:
    model = HookedModel(random_model("qwen3"), name="Qwen3ForCausalLM")
    change = InterchangeSubspace(Direction.of(some(WIDTH), site=site), sources)
    with pytest.raises(CliffscopeError, match=message), model.intervene(change):
        model.logits(TEXTS, ["close:-1"])


def test_a_source_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(CliffscopeError, match=r"rollout 'r0' has shape \[1, 32\], expected \[2, 32\]"):
        InterchangeSubspace(random_direction(1, resid_post(1)), {"r0": some(1, WIDTH)}, ["close:-1", "close:-2"])


def test_another_models_direction_is_refused() -> None:
    model = HookedModel(random_model("qwen3"))
    with (
        pytest.raises(CliffscopeError, match="direction"),
        model.intervene(InterchangeSubspace(at(3, difference(3)), {})),
    ):
        pass
