"""Autoencoders at a site: encode and decode by sae-lens alone, the decoded difference, loading and its refusals."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sae_lens
import torch

from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from interventions.latents import AddLatents, Latents, load_latents
from interventions.latents.loading import at_site
from interventions.steering.along_direction import AddDirection
from tests.architectures import random_model
from tests.interventions.latents.material import ARCHITECTURES, SITE, organism, random_sae, texts, tiny, trained

PLACE = "blocks.1.hook_resid_post"


def activations(n: int = 20, width: int = 32) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(3))


def here(sae: Any, site: str = PLACE) -> Latents:
    """An SAE that says that it belongs to the tiny model."""
    sae.cfg.metadata.hook_name, sae.cfg.metadata.model_name = site, "tiny qwen3"
    return at_site(tiny(), sae)


def tenfold(f: torch.Tensor) -> torch.Tensor:
    """Moves latents 1 and 7 where they are active."""
    moved = f.clone()
    moved[:, [1, 7]] *= 10
    return moved


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_the_decoded_difference_is_that_of_the_saes_own_functions(name: str) -> None:
    latents = here(random_sae(name))
    h = activations()
    found = latents.decoded_difference(h, tenfold)
    moved = 0
    for row, difference in zip(h, found, strict=True):
        # Token by token, and encoded before each decode: some keep a norm from one for the other.
        one = row[None]
        f = latents.sae.encode(one)
        old = latents.sae.decode(f)
        latents.sae.encode(one)
        new = latents.sae.decode(tenfold(f))
        torch.testing.assert_close(difference, (new - old)[0], atol=1e-5, rtol=1e-5)
        if torch.equal(tenfold(f), f):
            assert not difference.any()
        moved += bool(difference.any())
    assert 0 < moved
    assert latents.encode(h).shape == (20, 24)
    torch.testing.assert_close(latents.reconstruct(h), latents.sae(h), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_nothing_moved_is_exactly_nothing(name: str) -> None:
    latents = here(random_sae(name))
    assert not latents.decoded_difference(activations(), torch.clone).any()
    empty = torch.zeros(0, 32)
    assert latents.encode(empty).shape == (0, 24) and latents.decoded_difference(empty, torch.clone).shape == (0, 32)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_saved_and_loaded_by_sae_lens_alone(name: str, tmp_path: Path) -> None:
    latents = here(random_sae(name))
    latents.save(tmp_path / "a")
    latents.save(tmp_path / "b")
    plain = sae_lens.SAE.load_from_disk(tmp_path / "a")
    torch.testing.assert_close(plain.encode(activations()), latents.encode(activations()), atol=1e-6, rtol=0)
    again = load_latents(tiny(), str(tmp_path / "a"))
    assert again.digest == latents.digest and again.site == PLACE and again.remarks == ()
    assert latents.digest != here(random_sae(name, seed=1)).digest
    latents.sae.save_model(tmp_path / "plain")
    for file in ("cfg.json", "sae_weights.safetensors"):
        same = {(tmp_path / name / file).read_bytes() for name in ("a", "b", "plain")}
        assert len(same) == 1
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["cfg.json", "sae_weights.safetensors"]


def test_the_trained_one_is_read_back_by_sae_lens_alone(tmp_path: Path) -> None:
    latents, model = trained(), organism("cliff")
    latents.save(tmp_path / "sae")
    plain = sae_lens.SAE.load_from_disk(tmp_path / "sae")
    h = activations(50, model.d_model)
    torch.testing.assert_close(plain.encode(h), latents.encode(h), atol=1e-6, rtol=0)
    assert plain.cfg.metadata.hook_name == SITE
    told = plain.cfg.metadata["cliffscope"]
    assert told["fingerprint"] == model.fingerprint and told["model"] == "organism:cliff" and told["seed"] == 0
    again = load_latents(model, str(tmp_path / "sae"))
    assert again.facts == told == latents.facts and again.site == SITE and again.digest == latents.digest


def test_a_latents_direction_is_its_decoder_row() -> None:
    latents = here(random_sae())
    found = latents.direction(5)
    torch.testing.assert_close(found.vector * found.scale, latents.sae.W_dec[5], atol=1e-6, rtol=0)
    assert (found.method, found.site, found.layer, found.training["latent"]) == ("latent", PLACE, 1, 5)
    torch.testing.assert_close(latents.direction(5, sign=-1).vector, -found.vector)
    # Adding along it is adding to the latent, for an SAE that decodes linearly.
    model, batch = tiny(), texts()
    values = []
    for change in (AddLatents(latents, 5, 2.0, first_token=True), AddDirection(found, 2.0)):
        with model.intervene(change):
            values.append(model.capture(batch, ["blocks.2.hook_resid_post"], [1, 5])["blocks.2.hook_resid_post"])
    torch.testing.assert_close(values[0], values[1], atol=1e-4, rtol=1e-4)
    rescaled = here(random_sae("rescaled topk"))
    torch.testing.assert_close(rescaled.step(3).norm(), torch.tensor(1.0))


def test_heads_together_are_a_site_but_no_direction() -> None:
    model = tiny()
    latents = here(random_sae(d_in=64), "blocks.1.attn.hook_z")
    values = model.capture(texts(), [latents.site], [2])[latents.site][:, 0]
    assert values.shape == (3, 4, 16)
    torch.testing.assert_close(latents.encode(values), latents.sae.encode(values.flatten(1)))
    difference = latents.decoded_difference(values, tenfold)
    assert difference.shape == values.shape and difference.any()
    with pytest.raises(CliffscopeError, match="no direction of the model's width"):
        latents.direction(1)


def test_its_own_site_is_taken_and_another_refused() -> None:
    model = tiny()
    assert at_site(model, random_sae(hook_name="blocks.2.hook_mlp_out")).site == "blocks.2.hook_mlp_out"
    # One and the same residual stream by two names.
    assert at_site(model, random_sae(hook_name="blocks.2.hook_resid_pre"), PLACE).site == PLACE
    with pytest.raises(CliffscopeError, match=r"trained at blocks\.2\.hook_mlp_out, and blocks\.1\.hook_resid_post is"):
        at_site(model, random_sae(hook_name="blocks.2.hook_mlp_out"), PLACE)


@pytest.mark.parametrize(
    ("told", "site", "says"),
    [
        ({}, None, "does not say at which site it was trained; give one"),
        ({"hook_name": "blocks.9.hook_resid_post"}, None, r"which is no site here \(There is no layer 9"),
        ({"hook_name": "blocks.1.ln2.hook_normalized"}, None, "which is no site here"),
        ({"hook_name": "blocks.0.attn.hook_z"}, None, r"of width 32, and blocks\.0\.attn\.hook_z .* has width 64"),
        ({"hook_name": PLACE, "hook_head_index": 2}, None, "reads one head alone"),
        ({}, "blocks.7.hook_resid_post", "There is no layer 7"),
    ],
)
def test_what_does_not_fit_is_refused(told: dict[str, object], site: str | None, says: str) -> None:
    with pytest.raises(CliffscopeError, match=says):
        at_site(tiny(), random_sae(**told), site)


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({}, "does not say at which site it was trained; it is used at"),
        ({"hook_name": "blocks.1.ln2.hook_normalized"}, "which is no site here; it is used at"),
        ({"hook_name": PLACE, "model_name": "someone/gpt2"}, "trained on someone/gpt2; this is tiny qwen3"),
    ],
)
def test_what_may_not_fit_is_said(told: dict[str, object], says: str) -> None:
    with pytest.warns(UserWarning, match=says):
        latents = at_site(tiny(), random_sae(**told), PLACE)
    assert len(latents.remarks) == 1


def test_one_of_another_model_is_refused() -> None:
    known = {"fingerprint": tiny().fingerprint, "model": "tiny qwen3"}
    other = HookedModel(random_model("llama"))
    at_site(tiny(), random_sae(hook_name=PLACE, cliffscope=known))
    with pytest.raises(CliffscopeError, match=r"made for tiny qwen3.*architecture Qwen3ForCausalLM there"):
        at_site(other, random_sae(hook_name=PLACE, cliffscope=known))


def test_kinds_that_have_no_decoded_difference_are_refused() -> None:
    transcoder = sae_lens.Transcoder(sae_lens.TranscoderConfig(d_in=32, d_sae=24, d_out=32, apply_b_dec_to_input=False))
    with pytest.raises(CliffscopeError, match="is a transcoder, which writes elsewhere"):
        at_site(tiny(), transcoder, PLACE)
    temporal = sae_lens.TemporalSAE(sae_lens.TemporalSAEConfig(d_in=32, d_sae=24, n_heads=2, bottleneck_factor=2))
    with pytest.raises(CliffscopeError, match="encodes a token from all before it"):
        at_site(tiny(), temporal, PLACE)
    broken = random_sae()
    broken.W_enc.data[2, 3] = float("nan")
    with pytest.raises(CliffscopeError, match="NaN or infinite values in W_enc"):
        at_site(tiny(), broken, PLACE)


def _config(**changed: object) -> Callable[[Path], object]:
    def spoil(folder: Path) -> None:
        old = json.loads((folder / "cfg.json").read_text())
        (folder / "cfg.json").write_text(json.dumps({**old, **changed}))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda folder: (folder / "cfg.json").unlink(), r"no cfg\.json; an SAE is a folder with"),
        (lambda folder: (folder / "sae_weights.safetensors").unlink(), r"no sae_weights\.safetensors"),
        (lambda folder: (folder / "cfg.json").write_text("{"), r"cfg\.json: not valid JSON"),
        (
            lambda folder: (folder / "sae_weights.safetensors").write_bytes(b"nothing of the kind"),
            "sae-lens cannot load it",
        ),
        (_config(architecture="unheard of"), "sae-lens cannot load it"),
        (_config(d_sae=25), "sae-lens cannot load it"),
    ],
)
def test_folders_that_cannot_be_loaded(spoil: Callable[[Path], object], says: str, tmp_path: Path) -> None:
    here(random_sae()).save(tmp_path / "sae")
    spoil(tmp_path / "sae")
    with pytest.raises(CliffscopeError, match=says) as caught:
        load_latents(tiny(), str(tmp_path / "sae"))
    assert "\n" not in str(caught.value) and str(tmp_path / "sae") in str(caught.value)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("no-such-folder", "no such folder; give a folder"),
        ("no-such-release:blocks.1", "no-such-release not found"),
        ("gpt2-small-res-jb:blocks.99.hook_resid_pre", "not found in release"),
        ("gpt2-small-res-jb:blocks.8.hook_resid_pre", r"cannot be loaded from the hub \("),  # there is no network
    ],
)
def test_the_hub_without_such_an_sae_or_without_network(source: str, says: str) -> None:
    with pytest.raises(CliffscopeError, match=says) as caught:
        load_latents(tiny(), source)
    assert "\n" not in str(caught.value) and source in str(caught.value)


def test_without_sae_lens_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here(random_sae()).save(tmp_path)
    monkeypatch.setitem(sys.modules, "sae_lens", None)
    with pytest.raises(CliffscopeError, match=r"need sae-lens.*pip install 'cliffscope\[sae\]'"):
        load_latents(tiny(), str(tmp_path))


def test_no_such_latent() -> None:
    latents = here(random_sae())
    for latent in (-1, 24):
        with pytest.raises(CliffscopeError, match=f"no latent {latent}: the SAE has latents 0 to 23"):
            latents.step(latent)
