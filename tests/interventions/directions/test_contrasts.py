"""Which rollouts make the two groups of a contrast, where they are read, and what is said when a group is missing."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from interp.errors import CliffscopeError
from interp.rollouts import Rollout
from interventions.directions import CONTRASTS, contrast_of, examples_of, fit_directions
from interventions.directions.contrasts import SITES, defaults_of, read_contrast, site_at
from tests.circuits.material import organism, organism_rollouts


def rollout(name: str, harmful: bool | None, refused: bool | None) -> Rollout:
    return Rollout(name, f"Tell me of {name}.", "Hm.", "Well.", harmful, None, refused)


EVERY = [
    rollout("refused", True, True),
    rollout("complied", True, False),
    rollout("benign", False, False),
    rollout("benign_refused", False, True),
    rollout("unlabelled", None, True),
    replace(rollout("unclosed", True, None), response=None),
    rollout("not judged", False, None),
]

EXPECTED = {
    "refused-complied": (["refused"], ["complied"]),
    "refused-benign": (["refused"], ["benign"]),
    "harmful-benign": (["refused", "complied", "unclosed"], ["benign", "benign_refused", "not judged"]),
}


@pytest.mark.parametrize("contrast", sorted(CONTRASTS))
def test_groups(contrast: str) -> None:
    groups = contrast_of(EVERY, contrast)
    assert tuple([EVERY[i].id for i in group] for group in groups) == EXPECTED[contrast]


@pytest.mark.parametrize("contrast", sorted(CONTRASTS))
def test_examples_are_the_groups_with_labels_and_the_rest_is_counted(contrast: str) -> None:
    rollouts = organism_rollouts("cliff")
    examples = examples_of(organism("cliff"), rollouts, contrast, ["inst", "close:-1"])
    positive, negative = contrast_of(rollouts, contrast)
    assert [examples.ids[i] for i in torch.nonzero(examples.labels == 1)[:, 0]] == [rollouts[i].id for i in positive]
    assert [examples.ids[i] for i in torch.nonzero(examples.labels == 0)[:, 0]] == [rollouts[i].id for i in negative]
    assert sum(examples.skipped.values()) == len(rollouts) - len(examples.ids)
    assert contrast_of(examples, contrast) == (
        torch.nonzero(examples.labels == 1)[:, 0].tolist(),
        torch.nonzero(examples.labels == 0)[:, 0].tolist(),
    )


def test_defaults_of_the_kinds() -> None:
    assert defaults_of("refusal") == ("refused-complied", "close:-1")
    assert defaults_of("harmfulness") == ("harmful-benign", "inst")
    assert defaults_of("harmfulness", position="post_inst") == ("harmful-benign", "post_inst")
    assert defaults_of("politeness", "refused-benign", "inst") == ("refused-benign", "inst")
    with pytest.raises(CliffscopeError, match="'politeness': only refusal and harmfulness have defaults"):
        defaults_of("politeness")
    with pytest.raises(CliffscopeError, match="contrast 'good-bad': expected one of refused-complied, refused-benign"):
        defaults_of("refusal", "good-bad")
    with pytest.raises(CliffscopeError, match="position 'edge': not a position"):
        defaults_of("refusal", position="edge")


def test_rollouts_that_lack_the_position_are_left_out_and_counted() -> None:
    rollouts = list(organism_rollouts("cliff"))
    for index in (0, 1):
        rollouts[index] = replace(rollouts[index], response=None, refused=None)
    examples = examples_of(organism("cliff"), rollouts, "harmful-benign", ["close:-1"])
    assert examples.skipped == {"lacks close:-1": 2}
    assert len(examples_of(organism("cliff"), rollouts, "harmful-benign", ["inst"]).ids) == 96


def outcome(*kept: str) -> Callable[[], list[Rollout]]:
    return lambda: [r for r in organism_rollouts("cliff") if r.outcome in kept]


def same_prompt() -> list[Rollout]:
    rollouts = outcome("refused", "complied")()
    first = next(r for r in rollouts if r.outcome == "refused")
    return [replace(r, prompt=first.prompt) if r.outcome == "refused" else r for r in rollouts]


MISSING: dict[str, tuple[str, Callable[[], list[Rollout]], str]] = {
    "none complied": (
        "refused-complied",
        outcome("refused", "benign"),
        "none answered a harmful prompt .refused-complied.; .*name --contrast refused-benign. 32 left out: answered a",
    ),
    "none refused": (
        "refused-complied",
        outcome("complied", "benign"),
        "none refused a harmful prompt .refused-complied.",
    ),
    "none benign": ("harmful-benign", outcome("refused", "complied"), "none has a benign prompt .harmful-benign."),
    "not judged": (
        "refused-benign",
        lambda: [replace(r, refused=None) for r in organism_rollouts("cliff")],
        "none refused a harmful prompt .* 96 left out: not judged",
    ),
    "too few": (
        "refused-complied",
        lambda: outcome("refused")()[:3] + outcome("complied")()[:4],
        "3 and 4 of the contrast refused-complied are too few for a direction: at least 8 are needed",
    ),
    "one prompt": ("refused-complied", same_prompt, "only one prompt of those of which a rollout refused a harmful"),
    "no position": ("refused-complied", outcome("refused", "complied"), "none refused.*64 left out: lacks close:-99"),
}


@pytest.mark.parametrize("case", sorted(MISSING))
def test_what_is_missing_is_said(case: str) -> None:
    contrast, rollouts, message = MISSING[case]
    position = "close:-99" if case == "no position" else "close:-1"
    with pytest.raises(CliffscopeError, match=message):
        fit_directions(organism("cliff"), rollouts(), contrast=contrast, position=position)


@pytest.mark.parametrize("site", sorted(SITES))
def test_values_are_those_of_a_capture_at_every_site(site: str) -> None:
    model, rollouts = organism("cliff"), organism_rollouts("cliff")[:20] + organism_rollouts("cliff")[-20:]
    positions = ["inst", "think:0.5", "close:-1"]
    examples = examples_of(model, rollouts, "harmful-benign", positions)
    values = read_contrast(model, examples, [1, 4], site)
    assert values.shape == (2, 40, 3, model.d_model)
    one = model.capture(examples.transcripts[7:8], [site_at(site, 4)], [examples.transcripts[7].position("think:0.5")])
    torch.testing.assert_close(values[1, 7, 1], one[site_at(site, 4)][0, 0], atol=1e-4, rtol=1e-4)


def test_sites_that_have_no_direction_are_refused() -> None:
    model, rollouts = organism("cliff"), organism_rollouts("cliff")
    with pytest.raises(CliffscopeError, match=r"attn.hook_z: is one value for each head .*use hook_attn_out"):
        fit_directions(model, rollouts, site="attn.hook_z")
    with pytest.raises(CliffscopeError, match="site 'hook_nothing': expected one of hook_resid_pre"):
        fit_directions(model, rollouts, site="hook_nothing")
