"""The Latent Guard: whether a prompt is harmful, read from inside before a token is generated.

fitted = fit_guard(model, prompts)                 # prompts with `harmful`, best with `category`
print(fitted.held_out.auroc, fitted.guard.training["promise"])
fitted.guard.flags(model, new_prompts)             # what it would stop
"""

from probes.guard.figures import GuardFigures, confounded
from probes.guard.filtering import REFUSAL, GuardedGenerator
from probes.guard.fitting import GuardFit, GuardOptions, fit_guard
from probes.guard.latent_guard import LatentGuard
from probes.guard.readers import Centroids
from probes.guard.threshold import Threshold, choose_threshold

__all__ = [
    "REFUSAL",
    "Centroids",
    "GuardFigures",
    "GuardFit",
    "GuardOptions",
    "GuardedGenerator",
    "LatentGuard",
    "Threshold",
    "choose_threshold",
    "confounded",
    "fit_guard",
]
