"""Recovery of the planted direction: |cosine| of what is fitted with the vector that training used."""

from cliffbench.instances import Instance
from interp.errors import CliffscopeError
from interventions.directions.direction import Direction
from interventions.directions.fitting import best_layer, fit_directions


def score_directions(instance: Instance) -> dict[str, float]:
    """The |cosine| by way of fitting: the mean difference at `inst`, and the probe's weight at the edge.

    Empty where no direction is known. The layer of the mean difference is chosen by its held-out AUROC, and the probe's
    by the product's own rule; neither looks at the planted one.
    """
    planted = instance.truth.direction
    if planted is None:
        return {}
    truth = Direction.of(planted)
    cosines = {"probe weight": Direction.of(instance.probe.weight)}
    try:
        fitted = fit_directions(instance.model, instance.rollouts, kind="harmfulness", seed=instance.seed)
        cosines["mean difference at inst"] = fitted[best_layer(fitted)]
    except CliffscopeError:
        pass  # too few rollouts of a kind
    return {name: abs(float(found.vector @ truth.vector)) for name, found in cosines.items()}
