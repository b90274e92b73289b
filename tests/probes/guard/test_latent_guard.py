"""The guard: its score by hand, on organisms that it must read, and its file."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from interp.errors import CliffscopeError
from interp.organisms import truth
from interp.rollouts.prompts import Prompt
from interp.tensor_files import read_tensors, write_tensors
from probes.guard import GuardFit, GuardOptions, LatentGuard, fit_guard
from probes.guard.readers import Centroids
from probes.linear import LinearProbe
from tests.circuits.material import organism
from tests.probes.guard.material import prompts

METHODS = ["centroids", "probe"]


@cache
def fitted(method: str, name: str = "cliff") -> GuardFit:
    return fit_guard(organism(name), prompts(), GuardOptions(method=method, folds=4))


def states(layer: int, some: list[Prompt]) -> np.ndarray:
    """The residual stream at `inst`, from Hugging Face's own hidden states, one prompt at a time, in float64."""
    model = organism("cliff")
    found = []
    for prompt in some:
        transcript = model.transcripts().prompt(prompt.text)
        with torch.no_grad():
            hidden = model.hf(torch.tensor([transcript.input_ids]), output_hidden_states=True).hidden_states
        found.append(hidden[layer + 1][0, transcript.position("inst")].double().numpy())
    return np.stack(found)


@cache
def captured(layer: int) -> np.ndarray:
    """The residual stream at `inst` of all prompts."""
    transcripts = organism("cliff").transcripts().prompts([p.text for p in prompts()], [p.id for p in prompts()])
    site = f"blocks.{layer}.hook_resid_post"
    return organism("cliff").capture(transcripts, [site], ["inst"])[site][:, 0].double().numpy()


def test_centroids_score_by_hand() -> None:
    """Mean over layers of the difference of cosines; means by hand from another way to read the states."""
    some = [*prompts()[:20], *prompts()[150:170]]
    guard = fitted("centroids").guard
    reader = guard.reader
    assert isinstance(reader, Centroids)
    expected = []
    for place, layer in enumerate(guard.layers[:-1]):  # hidden_states ends with the final norm in place of the last
        h = states(layer, some)
        cosines = [
            h @ mean / np.linalg.norm(mean) / np.linalg.norm(h, axis=1)
            for mean in (reader.harmful[place].double().numpy(), reader.benign[place].double().numpy())
        ]
        expected.append(cosines[0] - cosines[1])
    shallow = Centroids(reader.layers[:-1], reader.harmful[:-1], reader.benign[:-1])
    scores = replace(guard, reader=shallow).score(organism("cliff"), some)
    np.testing.assert_allclose(scores, np.mean(expected, axis=0), atol=1e-5)


def test_means_are_those_of_the_fitting_split_alone() -> None:
    """The centroids equal the means over prompts that are not in the calibration split."""
    found = fitted("centroids")
    facts = found.guard.training
    assert facts["n_fit"] + facts["n_calibration"] == 250
    assert sum(found.calibration.errors(kind)["n"] for kind in (True, False)) == facts["n_calibration"]
    reader = found.guard.reader
    assert isinstance(reader, Centroids)
    whole = {y: captured(2)[[p.harmful is y for p in prompts()]].mean(0) for y in (True, False)}
    for harmful, mine in ((True, reader.harmful[2]), (False, reader.benign[2])):
        gap = np.abs(mine.numpy() - whole[harmful]).max()
        assert 1e-4 < gap < 1.0  # a part of the prompts, and not all of them


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["aligned", "cliff"])
def test_organisms_on_held_out_categories(method: str, name: str) -> None:
    found = fitted(method, name)
    assert found.held_out_by == "category" and found.warning is None
    assert found.held_out.auroc >= 0.98 and found.held_out.auroc_interval.low >= 0.97
    assert found.held_out.missed <= 0.05 and found.held_out.flagged_benign <= 0.05
    assert found.held_out.errors(True)["n"] == 150 and found.held_out.errors(False)["n"] == 100
    assert found.calibration.auroc >= 0.98
    assert "5.0%" in found.guard.training["promise"]


@pytest.mark.parametrize("method", METHODS)
def test_shuffled_labels_are_not_found_again(method: str) -> None:
    """The null: labels that belong to no prompt's content are not told on held-out prompts."""
    rng = np.random.default_rng(0)
    labels = rng.permutation([prompt.harmful for prompt in prompts()])
    mixed = [replace(p, harmful=bool(y), category=None) for p, y in zip(prompts(), labels, strict=True)]
    found = fit_guard(organism("cliff"), mixed, GuardOptions(method=method), layers=[2, 3])
    assert found.held_out_by == "prompt"
    assert abs(found.held_out.auroc - 0.5) < 0.1
    # What was promised of benign prompts holds although the guard knows nothing: 5 % within sampling error.
    assert found.held_out.flagged_benign < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 100)


def test_planted_direction_is_what_the_probe_reads() -> None:
    """The probe finds the planted "harmful" direction, which nobody told it."""
    guard = fit_guard(organism("cliff"), prompts(), GuardOptions("probe", None, folds=2), layers=[5]).guard
    assert isinstance(guard.reader, LinearProbe)
    planted = torch.tensor(truth("cliff")["direction"])
    score = guard.score(organism("cliff"), prompts())
    coordinate = captured(4) @ planted.double().numpy()
    assert np.corrcoef(score, coordinate)[0, 1] > 0.9


def test_layer_of_the_probe_is_the_best_one() -> None:
    """Layer 0 alone knows less than the middle: with both the middle is taken."""
    found = fit_guard(organism("cliff"), prompts(), GuardOptions("probe", None, folds=2), layers=[0, 3])
    assert found.guard.layers == (3,) and found.guard.site == "blocks.3.hook_resid_post"


def test_score_does_not_depend_on_batches_and_labels() -> None:
    guard = fitted("centroids").guard
    some = list(prompts()[::10])
    bare = [Prompt(p.id, p.text) for p in some]
    scores = guard.score(organism("cliff"), some)
    np.testing.assert_allclose(guard.score(organism("cliff"), bare[::-1], batch_tokens=64)[::-1], scores, atol=1e-5)
    assert (guard.flags(organism("cliff"), some) == [p.harmful for p in some]).all()
    assert guard.score(organism("cliff"), []).shape == (0,)


@pytest.mark.parametrize("method", METHODS)
def test_file(method: str, tmp_path: Path) -> None:
    guard = fitted(method).guard
    guard.save(tmp_path / "a.safetensors")
    read = LatentGuard.load(tmp_path / "a.safetensors")
    read.save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert (read.method, read.layers, read.threshold, read.digest) == (
        method,
        guard.layers,
        guard.threshold,
        guard.digest,
    )
    some = list(prompts()[:8])
    assert (read.score(organism("cliff"), some) == guard.score(organism("cliff"), some)).all()
    assert replace(read, threshold=1.0).digest != read.digest


def test_file_errors(tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    guard = fitted("centroids").guard
    guard.save(path)
    tensors, metadata = read_tensors(path)

    def spoiled(message: str, tensors: dict[str, torch.Tensor] = tensors, **changed: str) -> None:
        write_tensors(path, tensors, {**metadata, **changed})
        with pytest.raises(CliffscopeError, match=message) as error:
            LatentGuard.load(path)
        assert str(path) in str(error.value)

    spoiled("not a guard .format 'cliffscope.probe'", format="cliffscope.probe")
    spoiled("version '9'", version="9")
    spoiled("unknown guard method 'oracle'", method="oracle")
    spoiled("a guard of method probe has other tensors", method="probe")
    spoiled("metadata cannot be read", threshold="high")
    spoiled("threshold must be a finite number", threshold="NaN")
    spoiled("expected two means", layers="[0, 1]")
    spoiled("mean of a class is zero", {**tensors, "benign": torch.zeros_like(tensors["benign"])})
    with pytest.raises(CliffscopeError, match="no such file"):
        LatentGuard.load(tmp_path / "none.safetensors")


def test_other_model_is_refused() -> None:
    guard = fitted("centroids").guard
    other = replace(guard, fingerprint={**guard.fingerprint, "n_layers": "7"})
    with pytest.raises(CliffscopeError, match=r"guard: made for organism:cliff.*n_layers 7 there, 6 here.; fit one"):
        other.score(organism("aligned"), prompts()[:2])
    narrow = Centroids((0,), torch.ones(1, 8), -torch.ones(1, 8))
    with pytest.raises(CliffscopeError, match="width 8, found 128"):
        LatentGuard(narrow, 0.0).score(organism("cliff"), prompts()[:2])


def test_fit_errors() -> None:
    model = organism("cliff")
    with pytest.raises(CliffscopeError, match="150 are labelled harmful and 0 benign; a guard needs both"):
        fit_guard(model, prompts()[:150])
    with pytest.raises(CliffscopeError, match=r"calibration: 9 benign prompts cannot promise 5.0%"):
        fit_guard(model, [*prompts()[:30], *prompts()[150:180]])
    with pytest.raises(CliffscopeError, match=r"calibration without held-out category group 1 of 2: 15 benign"):
        fit_guard(model, prompts(), GuardOptions(folds=2))
    with pytest.raises(CliffscopeError, match="method: expected centroids or probe"):
        GuardOptions(method="oracle")
    with pytest.raises(CliffscopeError, match="calibration: expected a share"):
        GuardOptions(calibration=1)
    bare = [replace(prompt, harmful=None) for prompt in prompts()]
    with pytest.raises(CliffscopeError, match="0 are labelled harmful and 0 benign"):
        fit_guard(model, bare)


def test_too_long_and_broken_inputs() -> None:
    guard = fitted("centroids").guard
    with pytest.raises(CliffscopeError, match="the limit is"):
        guard.score(organism("cliff"), [Prompt("long", "word " * 3000)])
    broken = replace(guard, reader=LinearProbe(torch.full((128,), 3e38), 0.0, layer=3))
    with pytest.raises(CliffscopeError, match="NaN or infinite; try --dtype float32"):
        broken.score(organism("cliff"), prompts()[:3])
