"""A transport map between the two groups of a contrast: negative to positive, as a repair wants it.

Fitted on a part of the prompts. On the others it is measured how much of the distance between the two groups' means is
left when the negative one has been moved.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from interp.models.capture import BATCH_TOKENS
from interp.models.sites import FINAL_NORM, resolve_layer
from interp.rollouts import Rollout
from interventions.directions.contrasts import defaults_of, examples_of, read_contrast, site_at
from interventions.directions.fitting import TEST_FRACTION, provenance
from interventions.steering.transport import COMPONENTS, GaussianMap
from probes.splits import split_by_prompt

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel


def fit_map(
    model: "HookedModel",
    rollouts: Sequence[Rollout],
    layer: int,
    *,
    kind: str = "refusal",
    contrast: str | None = None,
    position: str | None = None,
    site: str = "hook_resid_post",
    components: int = COMPONENTS,
    seed: int = 0,
    batch_tokens: int = BATCH_TOKENS,
) -> GaussianMap:
    """The map from the negative group of a contrast to the positive one: from complied to refused by default.

    Args:
        model: The model to read.
        rollouts: Judged rollouts.
        layer: An index; −1 is the last.
        kind: What the groups differ in; `refusal` and `harmfulness` have defaults.
        contrast: One of `CONTRASTS`; that of the kind if `None`.
        position: Where to read; that of the kind if `None`.
        site: A site's name without its layer, or `ln_final.hook_out`.
        components: Dimensions of the subspace.
        seed: Of the split.
        batch_tokens: Token budget of a batch.

    Raises:
        CliffscopeError: If a group is missing or too small for so many components, or the site or layer does not exist.
    """
    contrast, position = defaults_of(kind, contrast, position)
    layer = model.n_layers - 1 if site == FINAL_NORM else resolve_layer(layer, model.n_layers)
    name = site_at(site, layer)
    examples = examples_of(model, rollouts, contrast, [position])
    split = split_by_prompt(examples.labels.numpy(), examples.prompts, TEST_FRACTION, seed)
    values = read_contrast(model, examples, [layer], site, batch_tokens=batch_tokens)[0, :, 0]
    positive = examples.labels.numpy() == 1
    source, target = (values[[i for i in split.train if positive[i] == side]] for side in (False, True))
    fitted = GaussianMap.fit(
        source,
        target,
        components=components,
        kind=kind,
        model=model.name,
        fingerprint=model.fingerprint,
        layer=layer,
        site=name,
        position=position,
    )
    held_source, held_target = (values[[i for i in split.test if positive[i] == side]] for side in (False, True))
    before = float((held_target.mean(0) - held_source.mean(0)).norm())
    after = float((held_target.mean(0) - fitted(held_source).mean(0)).norm())
    facts = {"contrast": contrast, **provenance(examples, split, seed), "distance_before": before}
    return fitted.at(training={**facts, "distance_after": after})
