"""What of an activation is read downstream: the part that can matter, and the part that cannot.

Makelov et al. 2023 (arXiv 2311.17030, section 3) take a site with one reader, the hidden layer of an MLP, and split a
direction by the row space of W_out: v = v_row + v_null. Two ways to find that space are offered here.

- From weights, for a site with one linear reader: the reader's row space. Exact; nothing is assumed. Only a reader of
  lower rank than its width leaves anything unread.
- From gradients, for any site. The residual stream is read by every later layer, each behind its norm, and by weights
  alone together they read every direction. So the reader is taken to be the rest of the model, from the site to all
  next-token logits at the edge, and what it reads is spanned by the gradients of random combinations of these logits:
  the leading eigenvectors of C = E[Jᵀ J], J being the Jacobian. Where the rest of the model is linear this is its row
  space again, and the paper's case. If uᵀCu = 0 then J u = 0 wherever C was taken: no logit moves along u, to first
  order; such a space is called *inactive* in Constantine, Dow and Wang 2014. The smallest eigenvalues are cut off:
  in real models, where nothing is read exactly not at all, the cut is a choice, and what lies beyond it is read little.

Why all logits, and not the refusal logit, whose change is what counts in the end? Its gradients alone lie almost along
one line. The read part of *any* direction would then be that line, along which interchange always works, and every
direction would pass. Norms pass gradients as if their scales were constants, as in direct logit attribution: through
its scale a norm reads everything a little. What the norms' scales do shows in the effect of the unread part.

The second way assumes that the gradients at the sampled points (on the straight ways between rollouts, as the patches
go) stand for those in between. Two things test that: how much of the gradients of *other* rollouts the space holds,
and the effect of interchanging the unread part alone, which must be small.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import CliffscopeError
from interp.models.sites import Site

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

FoundBy = Literal["gradients", "weights"]

HELD = 0.99
"""Share of the squared gradients of held-out rollouts that the read space is to hold."""
ROUNDING = 1e-4
"""A part of a unit vector shorter than this is rounding: bases are kept in float32."""


@dataclass(frozen=True, eq=False)
class ReadSpace:
    """What is read of an activation.

    Attributes:
        basis: Orthonormal rows, float32 on the CPU.
        found_by: `weights` or `gradients`.
        held: The share of held-out squared gradients that it holds; 1 by weights.
    """

    basis: Float[Tensor, "rank width"]
    found_by: FoundBy
    held: float

    @property
    def rank(self) -> int:
        """Its dimensions."""
        return len(self.basis)

    @classmethod
    def of_weights(cls, reader: Float[Tensor, "out width"]) -> "ReadSpace":
        """The row space of a linear reader, or of several stacked.

        Raises:
            CliffscopeError: If it is zero, NaN or infinite.
        """
        _check(reader, "weights")
        weights = reader.detach().cpu().double()
        _, sizes, rows = torch.linalg.svd(weights, full_matrices=False)
        precision = torch.finfo(reader.dtype).eps if reader.is_floating_point() else 0.0
        kept = sizes > sizes[0] * max(weights.shape) * precision
        return cls(rows[kept].float(), "weights", 1.0)

    @classmethod
    def of_output_projection(cls, model: "HookedModel", site: Site) -> "ReadSpace":
        """What a layer's output projection W_O reads of `attn.hook_z`, all heads flat.

        Raises:
            CliffscopeError: If the site has more than one reader.
        """
        if site.name != "attn.hook_z" or site.layer is None:
            raise CliffscopeError(
                f"readers by weights: {site} is read by every later layer, and together they read every direction; "
                "take gradients. Only attn.hook_z has one reader, the output projection."
            )
        return cls.of_weights(model.places.output_weight(site.layer).flatten(0, 1).T)

    @classmethod
    def of_gradients(
        cls, fitted: Float[Tensor, "point width"], held_out: Float[Tensor, "other width"], held: float = HELD
    ) -> "ReadSpace":
        """The smallest leading eigenspace of E[∇∇ᵀ] that holds so much of other points' squared gradients.

        All that the fitted gradients span, if even that holds less.

        Args:
            fitted: Gradients that the space is made of.
            held_out: Gradients of other rollouts.
            held: The share, in (0, 1).

        Raises:
            CliffscopeError: If gradients are all zero (nothing is read), NaN or infinite, or the share is bad.
        """
        check_held(held)
        _check(fitted, "gradients")
        _check(held_out, "gradients")
        _, sizes, rows = torch.linalg.svd(fitted.cpu().double(), full_matrices=False)
        rows = rows[sizes > sizes[0] * 1e-6]
        others = held_out.cpu().double()
        energy = (others @ rows.T).square().sum(0).cumsum(0) / others.square().sum()
        rank = min(int((energy < held).sum()) + 1, len(rows))
        return cls(rows[:rank].float(), "gradients", float(energy[rank - 1]))

    def split(
        self, basis: Float[Tensor, "k width"]
    ) -> tuple[Float[Tensor, "read width"], Float[Tensor, "unread width"]]:
        """Orthonormal rows of the read and of the unread part of a subspace; either may be of no dimension.

        For one vector v = v_read + v_unread the two parts, each of unit length.
        """
        rows, mine = basis.double(), self.basis.double()
        read = (rows @ mine.T) @ mine
        return _orthonormal(read), _orthonormal(rows - read)

    def share(self, basis: Float[Tensor, "k width"]) -> float:
        """The mean squared length of the read part of a unit vector of the subspace."""
        return float((basis.double() @ self.basis.double().T).square().sum() / len(basis))


def check_held(held: float) -> None:
    """Raises `CliffscopeError` if a share of the gradients is none."""
    if not 0 < held < 1:
        raise CliffscopeError(f"read space: expected a share between 0 and 1 to hold, found {held:g}.")


def _orthonormal(rows: Float[Tensor, "k width"]) -> Float[Tensor, "rank width"]:
    if len(rows) == 1:
        size = rows.norm()
        return (rows / size).float() if size > ROUNDING else rows[:0].float()
    _, sizes, vectors = torch.linalg.svd(rows, full_matrices=False)
    return vectors[sizes > ROUNDING].float()


def _check(values: Tensor, name: str) -> None:
    if not values.numel() or not bool(torch.isfinite(values).all()) or not bool((values != 0).any()):
        raise CliffscopeError(
            f"read space: the {name} are missing, zero, NaN or infinite: no part of the activation is seen to be read."
        )
