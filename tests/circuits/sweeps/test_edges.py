"""Copies of edges side by side: each the same as a full run of its rollout alone with its heads changed."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from circuits.sweeps.edges import Edges
from tests.architectures import CONFIGS
from tests.circuits.sweeps.brute_force import both, one_run, rollouts, wrapped

SETS: tuple[tuple[tuple[int, int], ...], ...] = ((), ((1, 2),), ((0, 0), (1, 3), (2, 1)), ((2, 0),))


def value(row: int, layer: int, z: Tensor) -> Tensor:
    """Depends on row, layer and head, as values of another rollout would."""
    return torch.randn(z.shape, generator=torch.Generator().manual_seed(100 * row + layer))


def change_of(layer: int) -> Callable[[Tensor], Tensor]:
    heads = [[head for at, head in chosen if at == layer] for chosen in SETS]

    def change(z: Tensor) -> Tensor:
        new = z.clone()
        for row in range(len(z)):
            for copy, mine in enumerate(heads):
                new[row, copy, mine] = value(row, layer, z[row, :1])[0, mine]
        return new

    return change


@pytest.mark.parametrize(
    ("name", "attention"),
    [*((name, "sdpa") for name in CONFIGS), *((name, "eager") for name in ("gemma3", "gpt2", "mistral", "mixtral"))],
)
@pytest.mark.parametrize("edges", [(4, 27, 16), (12, 12)])
def test_copies_are_runs_of_their_own(name: str, attention: str, edges: tuple[int, ...]) -> None:
    model = wrapped(name, attention)
    transcripts = [transcript.until_edge() for transcript in rollouts(edges, [0] * len(edges))]
    made = Edges(model, transcripts)
    changes = {layer: change_of(layer) for layer in range(model.n_layers)}
    first, again = (made.read(both(), len(SETS), changes) for _ in range(2))
    torch.testing.assert_close(first, again)  # a pass leaves nothing behind
    for row, transcript in enumerate(transcripts):
        for copy, heads in enumerate(SETS):
            expected = one_run(model, transcript, row, value, transcript.edge, heads)
            torch.testing.assert_close(first[row, copy], expected, atol=1e-4, rtol=1e-4)
    assert (first[:, 1:] - first[:, :1]).abs().mean() > 0.05
