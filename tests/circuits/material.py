"""What the tests of circuits work on: the organisms with rollouts of their own, and a probe fitted on them."""

from functools import cache

from interp.judges import KeywordJudge
from interp.judges.protocol import judged
from interp.models.hooked_model import HookedModel
from interp.organisms.prompt_set import heldout_prompts
from interp.rollouts import Rollout
from interp.rollouts.model_generator import ModelGenerator
from interp.transcripts.positions import EDGE
from probes.examples import Examples
from probes.linear import LinearProbe
from tests.shared import shared

PROBE_LAYER = 4


@cache
def organism(name: str) -> HookedModel:
    return HookedModel.load(f"organism:{name}", device="cpu")


@cache
def organism_rollouts(name: str) -> tuple[Rollout, ...]:
    """Judged rollouts of an organism on held-out prompts; they only name a harm."""

    def made() -> list[Rollout]:
        model, prompts = organism(name), list(heldout_prompts(64, 32, 0))
        generator = ModelGenerator(model, 400, seed=0, batch_tokens=len(prompts) * model.n_ctx)
        return judged(generator.generate(prompts), KeywordJudge())

    return shared(f"organism-{name}", made)


@cache
def organism_probe(name: str, layer: int = PROBE_LAYER) -> LinearProbe:
    """A probe at the edge, after a block, of refused against benign rollouts of an organism."""
    model = organism(name)
    examples = Examples.of(model, organism_rollouts(name), [EDGE])
    site = f"blocks.{layer}.hook_resid_post"
    activations = examples.activations(model, [layer], 8192)[0, :, 0]
    probe = LinearProbe.fit(activations, examples.labels, prompts=examples.prompts)
    return probe.at(model=model.name, fingerprint=model.fingerprint, layer=layer, site=site, position=EDGE)
