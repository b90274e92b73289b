"""Loading a pretrained autoencoder onto a site, from a folder in sae-lens' own format or from the hub."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from interp.errors import CliffscopeError
from interp.models.fingerprint import require_same_model
from interp.models.sites import Site
from interventions.latents.latents import CONFIG, WEIGHTS, Latents
from interventions.latents.library import sae_lens

if TYPE_CHECKING:
    from interp.models.hooked_model import HookedModel

PROVENANCE = "cliffscope"
"""The key in sae-lens' metadata under which we say what an autoencoder was trained on."""

_BROKEN = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError)
"""What sae-lens raises for files that it cannot use."""


def load_latents(model: "HookedModel", source: str, site: str | None = None) -> Latents:
    """An autoencoder at a site of a model, in float32.

    Args:
        model: The model.
        source: A folder with `cfg.json` and `sae_weights.safetensors`; or `RELEASE:SAE_ID`, as sae-lens lists them, or
            `OWNER/REPOSITORY:FOLDER` on the hub.
        site: Where it belongs; `None` takes the hook name that it was trained at. One that contradicts it is refused.

    Raises:
        CliffscopeError: If there is no such autoencoder, it is damaged, does not fit the model or the site, or is of a
            kind that does not encode and decode one and the same activation.
    """
    check_source(source)
    sae = _from_folder(Path(source)) if Path(source).exists() else _from_hub(source)
    return at_site(model, sae, site, source)


def at_site(model: "HookedModel", sae: Any, site: str | None = None, source: str = "the SAE") -> Latents:
    """A `sae_lens.SAE` that is in memory, at a site of a model; see `load_latents`."""
    _require_usable(sae, source)
    metadata = sae.cfg.metadata
    told = metadata.get(PROVENANCE)
    facts: Mapping[str, Any] = told if isinstance(told, Mapping) else {}
    remarks: list[str] = []
    place = _site(metadata.get("hook_name"), site, model.n_layers, source, remarks)
    model.places.find(place)  # raises where this architecture has no such site
    width = width_at(model, place)
    if sae.cfg.d_in != width:
        raise CliffscopeError(
            f"{source}: reads activations of width {sae.cfg.d_in}, and {place} of {model.name} has width {width}; "
            "use an SAE of this model and site."
        )
    if facts.get("fingerprint"):
        known = {key: str(value) for key, value in facts["fingerprint"].items()}
        require_same_model(source, facts.get("model"), known, model.fingerprint, model.name, "train one on this model")
    trained_on = facts.get("model") or metadata.get("model_name")
    if trained_on and _base_name(str(trained_on)) != _base_name(model.name):
        remarks.append(f"{source} says that it was trained on {trained_on}; this is {model.name}.")
    for remark in remarks:
        warnings.warn(remark, stacklevel=2)
    return Latents(sae, str(place), source, model.name, model.fingerprint, facts, tuple(remarks))


def width_at(model: "HookedModel", place: Site) -> int:
    """Width of the activations at a site, all heads together."""
    return model.n_heads * model.d_head if place.name == "attn.hook_z" else model.d_model


def check_source(source: str) -> None:
    """Raises `CliffscopeError` for what can be no autoencoder; needs no library and no network."""
    folder = Path(source)
    if not folder.exists():
        if not all(source.partition(":")):
            raise CliffscopeError(
                f"SAE {source!r}: no such folder; give a folder with {CONFIG} and {WEIGHTS}, or RELEASE:SAE_ID on the "
                "hub."
            )
        return
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise CliffscopeError(
                f"{folder}: no {name}; an SAE is a folder with {CONFIG} and {WEIGHTS}, as sae-lens saves it."
            )


def _from_folder(folder: Path) -> Any:
    try:
        json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CliffscopeError(f"{folder / CONFIG}: not valid JSON ({error}).") from error
    library = sae_lens()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return library.SAE.load_from_disk(folder, device="cpu", dtype="float32")
    except _BROKEN as error:
        raise CliffscopeError(f"{folder}: sae-lens cannot load it ({_first_line(error)}).") from error


def _from_hub(source: str) -> Any:
    release, _, sae_id = source.partition(":")
    library = sae_lens()
    import httpx

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return library.SAE.from_pretrained(release, sae_id, device="cpu", dtype="float32")
    except (*_BROKEN, httpx.HTTPError) as error:
        raise CliffscopeError(f"SAE {source}: cannot be loaded from the hub ({_first_line(error)}).") from error


def _require_usable(sae: Any, source: str) -> None:
    """Raises `CliffscopeError` for what does not encode and decode the same activation, token by token."""
    architecture = str(sae.cfg.architecture())
    if "transcoder" in architecture:
        raise CliffscopeError(
            f"{source}: is a {architecture}, which writes elsewhere than it reads, so that no decoded difference of "
            "its own site exists; use an SAE."
        )
    if architecture == "temporal":
        raise CliffscopeError(
            f"{source}: a temporal SAE encodes a token from all before it, which a single token does not tell; use "
            "another architecture."
        )
    if sae.cfg.metadata.get("hook_head_index") is not None:
        raise CliffscopeError(f"{source}: reads one head alone, which is no site; use an SAE of a whole layer.")
    for name, tensor in sae.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise CliffscopeError(f"{source}: NaN or infinite values in {name}; train or download it again.")


def _site(own: str | None, asked: str | None, n_layers: int, source: str, remarks: list[str]) -> Site:
    wanted = None if asked is None else Site.parse(asked, n_layers)
    if own is None:
        if wanted is None:
            raise CliffscopeError(f"{source}: does not say at which site it was trained; give one (--site).")
        remarks.append(f"{source} does not say at which site it was trained; it is used at {wanted} as asked.")
        return wanted
    try:
        trained = Site.parse(own, n_layers)
    except CliffscopeError as error:
        if wanted is None:
            raise CliffscopeError(
                f"{source}: was trained at {own!r}, which is no site here ({error}) Give one (--site) if it belongs to "
                "this model."
            ) from error
        remarks.append(f"{source} was trained at {own!r}, which is no site here; it is used at {wanted} as asked.")
        return wanted
    if wanted is not None and _between_blocks(wanted) != _between_blocks(trained):
        raise CliffscopeError(
            f"{source}: was trained at {trained}, and {wanted} is asked for; leave the site out, or use an SAE of it."
        )
    return wanted or trained


def _between_blocks(site: Site) -> Site:
    """The residual stream before a block is the one after the block before it."""
    if site.name == "hook_resid_pre" and site.layer:
        return Site(site.layer - 1, "hook_resid_post")
    return site


def _base_name(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2].casefold()


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
