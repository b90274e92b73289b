"""What is read of an activation: by weights as scipy finds it, by gradients as the function was made."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from interp.errors import CliffscopeError
from interp.models.frozen_norm import frozen_scales
from interp.models.hooked_model import HookedModel
from interp.models.sites import Site
from interventions.subspace import ReadSpace, interchanged
from tests.architectures import CONFIGS, random_model

WIDTH, RANK = 20, 6


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


READER = drawn(9, RANK, seed=1) @ drawn(RANK, WIDTH, seed=2)


def test_by_weights_it_is_the_row_space() -> None:
    space = ReadSpace.of_weights(READER)
    assert space.basis.shape == (RANK, WIDTH) and space.held == 1 and space.found_by == "weights"
    theirs = scipy.linalg.orth(READER.T.numpy())
    mine = space.basis.double().numpy()
    np.testing.assert_allclose(mine.T @ mine, theirs @ theirs.T, atol=1e-6)
    v = drawn(1, WIDTH, seed=3)
    _, unread = space.split((v / v.norm()).float())
    # What is not read lies in the null space, which is found in another way there.
    null = scipy.linalg.null_space(READER.numpy())
    np.testing.assert_allclose(null @ (null.T @ unread[0].double().numpy()), unread[0].double().numpy(), atol=1e-6)


@pytest.mark.parametrize("k", [1, 3, RANK + 2])
def test_the_parts_are_orthonormal_and_make_up_the_subspace(k: int) -> None:
    space = ReadSpace.of_weights(READER)
    basis = torch.linalg.qr(drawn(WIDTH, k, seed=4)).Q.T.float()
    read, unread = space.split(basis)
    assert len(read) == min(k, RANK) and len(unread) == k
    both = torch.cat([read, unread])
    torch.testing.assert_close(both @ both.T, torch.eye(len(both)), atol=1e-5, rtol=0)
    torch.testing.assert_close(basis @ both.T @ both, basis, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(read @ space.basis.T @ space.basis, read, atol=1e-5, rtol=1e-5)
    assert space.share(basis) == pytest.approx(float((basis @ space.basis.T).square().sum() / k), abs=1e-6)


def test_what_is_all_read_or_not_at_all_has_one_part() -> None:
    space = ReadSpace.of_weights(READER)
    read, unread = space.split(space.basis[:1])
    assert len(read) == 1 and len(unread) == 0 and space.share(space.basis[:1]) == pytest.approx(1)
    null = torch.from_numpy(scipy.linalg.null_space(READER.numpy()).T[:2]).float()
    read, unread = space.split(null)
    assert len(read) == 0 and len(unread) == 2 and space.share(null) == pytest.approx(0, abs=1e-6)


def test_the_papers_own_example() -> None:
    """Makelov et al., section 3: h = (x, 0, x), out = 2 h2 + h3. Along (1, 1, 0) a patch works, by a dormant path."""
    reader = torch.tensor([[0.0, 2.0, 1.0]])
    base, source = torch.tensor([-1.0, 0.0, -1.0]), torch.tensor([1.0, 0.0, 1.0])
    v = torch.tensor([[1.0, 1.0, 0.0]]) / 2**0.5

    def effect(basis: Tensor) -> float:
        return float(reader @ (interchanged(base, source, basis) - base))

    assert effect(torch.eye(3)) == pytest.approx(2) == effect(v)
    # Where the second and third unit are read apart, as by a layer with more outputs, neither part does anything.
    read, unread = ReadSpace.of_weights(torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 1.0]])).split(v)
    assert effect(read) == pytest.approx(0) == effect(unread)
    # By the one output alone the read part is always the whole of what is read, and works for any direction: this is
    # why gradients are taken of all logits.
    read, _ = ReadSpace.of_weights(reader).split(v)
    assert effect(read) == pytest.approx(2)


def test_by_gradients_it_is_what_the_function_depends_on() -> None:
    """f(h) = sin of a projection, summed with weights drawn anew at each point."""
    rows = torch.linalg.qr(drawn(WIDTH, RANK, seed=5)).Q.T
    h = drawn(400, WIDTH, seed=6).requires_grad_()
    (torch.sin(h @ rows.T) * drawn(400, RANK, seed=7)).sum().backward()
    assert h.grad is not None
    space = ReadSpace.of_gradients(h.grad[:200].float(), h.grad[200:].float())
    assert space.rank == RANK and space.held == pytest.approx(1, abs=1e-5) and space.found_by == "gradients"
    torch.testing.assert_close(space.basis.T @ space.basis, (rows.T @ rows).float(), atol=1e-4, rtol=0)


def test_the_share_that_is_held_decides_the_rank() -> None:
    sizes = torch.tensor([10.0, 3.0, 1.0, 0.1])
    points = drawn(4000, 4, seed=8).float() * sizes
    energy = (sizes.square().cumsum(0) / sizes.square().sum()).tolist()
    for rank, held in ((1, 0.85), (2, 0.95), (3, 0.9995)):
        space = ReadSpace.of_gradients(points[:2000], points[2000:], held)
        assert space.rank == rank
        assert space.held == pytest.approx(energy[rank - 1], abs=0.01)


def test_held_is_of_gradients_that_it_was_not_made_of() -> None:
    """Five points span five dimensions and hold all of themselves, but not others."""
    space = ReadSpace.of_gradients(drawn(5, WIDTH).float(), drawn(500, WIDTH, seed=9).float())
    assert space.rank == 5 and space.held == pytest.approx(5 / WIDTH, abs=0.05)


def test_the_output_projections_null_space_is_not_read_at_all() -> None:
    """Qwen3 with 64 values of z for a residual stream of 32."""
    model = HookedModel(random_model("qwen3"))
    space = ReadSpace.of_output_projection(model, Site(1, "attn.hook_z"))
    assert space.rank == 32
    _, unread = space.split(drawn(1, 64).float() / drawn(1, 64).float().norm())
    out = model.places.output_weight(1).flatten(0, 1).detach()
    assert float((unread @ out).abs().max()) < 1e-5
    with pytest.raises(CliffscopeError, match=r"blocks.1.hook_resid_post is read by every later layer"):
        ReadSpace.of_output_projection(model, Site(1, "hook_resid_post"))


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_frozen_scales_keep_values_and_make_the_last_layer_linear(name: str) -> None:
    """From after the last block the logits are then W_U diag(gain) times the value, up to one factor."""
    model = HookedModel(random_model(name))
    ids = torch.tensor([[5, 6, 7, 8]])
    captured: list[Tensor] = []
    handle = model.places.blocks[-1].register_forward_hook(
        lambda module, args, output: captured.append(output[0] if isinstance(output, tuple) else output)
    )
    plain = model.hf(ids).logits
    with frozen_scales(model.hf):
        logits = model.hf(ids).logits
        (gradient,) = torch.autograd.grad(logits[0, -1, 11] - logits[0, -1, 12], captured[-1])
    handle.remove()
    torch.testing.assert_close(logits, plain)
    with torch.no_grad():
        norm, head = model.places.final_norm, model.hf.get_output_embeddings().weight
        # A norm's gain, as the paper's W_out would see it: how it maps each axis, seen on a large symmetric input.
        signs = torch.ones(WIDTH_OF)
        signs[1::2] = -1
        gain = (norm.forward(signs) - norm.forward(-signs)) / 2 * signs
        expected = gain * (head[11] - head[12])
        if type(norm).__name__ == "LayerNorm":
            expected = expected - expected.mean()
    cosine = torch.nn.functional.cosine_similarity(gradient[0, -1], expected, dim=0)
    assert float(cosine) == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(model.hf(ids).logits, plain)


WIDTH_OF = 32


@pytest.mark.parametrize(
    "bad", [torch.zeros(3, 4), torch.full((3, 4), float("nan")), torch.zeros(0, 4)], ids=["zero", "nan", "empty"]
)
def test_nothing_read_is_an_error(bad: Tensor) -> None:
    good = torch.ones(2, 4)
    for make in (lambda: ReadSpace.of_weights(bad), lambda: ReadSpace.of_gradients(bad, good)):
        with pytest.raises(CliffscopeError, match="are missing, zero, NaN or infinite"):
            make()
    with pytest.raises(CliffscopeError, match=r"share between 0 and 1 to hold, found 1\.5"):
        ReadSpace.of_gradients(good, good, 1.5)
