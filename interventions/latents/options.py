"""How an autoencoder is trained."""

from dataclasses import dataclass

from interp.errors import CliffscopeError
from interp.transcripts.positions import SEGMENTS
from interventions.latents.tokens import check_segments

ARCHITECTURES = ("batchtopk", "topk", "standard")


@dataclass(frozen=True)
class TrainingOptions:
    """How an autoencoder is trained.

    Attributes:
        width: Latents.
        steps: Of the optimizer.
        batch: Tokens a step.
        architecture: `batchtopk` (Bussmann et al. 2024, arXiv 2412.06410; saved as a JumpReLU, which a token alone
            decides), `topk` (Gao et al. 2024, arXiv 2406.04093), or `standard` (ReLU with an L1 penalty).
        k: Latents active at a token: in the mean (`batchtopk`) or at each (`topk`).
        l1: The penalty of `standard`, in sae-lens' units.
        lr: Learning rate; warmed up over the first twentieth of the steps, lowered over the last fifth.
        segments: Which tokens of the rollouts; the first token of a text is never among them.
        seed: Of the first weights, the order of tokens, and the prompts held out.

    Raises:
        CliffscopeError: If a value cannot be.
    """

    width: int = 512
    steps: int = 1000
    batch: int = 512
    architecture: str = "batchtopk"
    k: int = 16
    l1: float = 1.0
    lr: float = 1e-3
    segments: tuple[str, ...] = SEGMENTS
    seed: int = 0

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise CliffscopeError(f"architecture {self.architecture!r}: expected one of {', '.join(ARCHITECTURES)}.")
        for name in ("width", "steps", "batch", "k"):
            if getattr(self, name) < 1:
                raise CliffscopeError(f"{name}: expected at least 1, found {getattr(self, name)}.")
        if self.k > self.width:
            raise CliffscopeError(f"k: {self.k} latents cannot be active at once among {self.width}.")
        if not self.lr > 0 or not self.l1 >= 0:
            raise CliffscopeError(
                f"lr, l1: expected a rate above 0 and a penalty of at least 0, found {self.lr:g}, {self.l1:g}."
            )
        check_segments(self.segments)
