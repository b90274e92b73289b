"""Adding, ablating and clamping against the same change made by hand, on several architectures and paddings."""

import warnings
from collections.abc import Sequence
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from interp import HookedModel, Ledger, Transcript
from interp.errors import CliffscopeError
from interp.models.hooks import Intervention
from interp.models.intervening import NothingChangedWarning
from interp.models.token_context import TokenContext
from interventions.directions.direction import Direction
from interventions.steering.along_direction import AblateDirection, AddDirection, ClampDirection
from tests.architectures import PARALLEL, random_model
from tests.interventions.test_head_ablation import texts

ARCHITECTURES = ["gemma3", "gpt2", "gpt_neox", "qwen3"]
SITE = "blocks.1.hook_resid_post"
WIDTH = 32
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@cache
def model_of(name: str) -> HookedModel:
    return HookedModel(random_model(name), name=name)


def direction_of(k: int = 1, seed: int = 0, **facts: object) -> Direction:
    drawn = torch.randn(k, WIDTH, generator=torch.Generator().manual_seed(seed))
    return Direction.of(drawn, **{"scale": 2.5, "site": SITE, **facts})


def read(
    model: HookedModel,
    transcripts: Sequence[Transcript],
    *interventions: Intervention,
    site: str = SITE,
    side: str = "right",
    ledger: Ledger | None = None,
) -> list[Tensor]:
    """`[pos, d_model]` of each transcript; all go in one batch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NothingChangedWarning)
        with model.intervene(*interventions, ledger=ledger):
            n = min(map(len, transcripts))
            values = model.capture(transcripts, [site], [*range(n), *range(-n, 0)], padding_side=side)[site]
    return [torch.cat([value[: len(text) - n], value[n:]]) for value, text in zip(values, transcripts, strict=True)]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_each_change_is_its_formula_at_the_tokens_of_the_scope_and_nothing_elsewhere(name: str, side: str) -> None:
    model, transcripts, direction = model_of(name), texts([4, 0, 2]), direction_of()
    r = direction.vector
    formulas = {
        "scale": (AddDirection(direction, -1.5, scope="close"), lambda h: h - 1.5 * 2.5 * r),
        "absolute": (AddDirection(direction, 0.7, "absolute", scope="close"), lambda h: h + 0.7 * r),
        "norm": (
            AddDirection(direction, 0.2, "norm", scope="close"),
            lambda h: h + 0.2 * h.norm(dim=-1, keepdim=True) * r,
        ),
        "ablate": (AblateDirection(direction, scope="close"), lambda h: h - torch.outer(h @ r, r)),
        "mirror": (AblateDirection(direction, 2.0, scope="close"), lambda h: h - 2 * torch.outer(h @ r, r)),
        "clamp": (ClampDirection(direction, -3.0, scope="close"), lambda h: h + torch.outer(-3.0 - h @ r, r)),
    }
    plain = read(model, transcripts, side=side)
    for change, formula in formulas.values():
        for before, after in zip(plain, read(model, transcripts, change, side=side), strict=True):
            torch.testing.assert_close(after[7:9], formula(before[7:9]), **CLOSE)
            assert torch.equal(after[:7], before[:7]) and torch.equal(after[9:], before[9:])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_subspaces_of_several_dimensions(name: str) -> None:
    model, transcripts = model_of(name), texts([2, 2])
    means = {"positive": torch.tensor([1.0, 2.0, 0.0]), "negative": torch.tensor([-1.0, 2.0, 1.0])}
    subspace = direction_of(3, **means)
    plain = torch.stack(read(model, transcripts))

    def changed(change: Intervention) -> Tensor:
        return torch.stack(read(model, transcripts, change))

    ablated = changed(AblateDirection(subspace))
    assert subspace.coordinates(ablated).abs().max() < 1e-5
    torch.testing.assert_close(ablated, plain - subspace.project(plain), **CLOSE)
    clamped = changed(ClampDirection(subspace, "negative"))
    torch.testing.assert_close(subspace.coordinates(clamped), means["negative"].expand(2, 11, 3), **CLOSE)
    torch.testing.assert_close(clamped - subspace.project(clamped), plain - subspace.project(plain), **CLOSE)
    added = changed(AddDirection(subspace, 2.0))
    towards = torch.tensor([2.0, 0.0, -1.0]) / 5**0.5
    torch.testing.assert_close(added, plain + 2.0 * 2.5 * towards @ subspace.basis, **CLOSE)
    along = changed(AddDirection(subspace, 1.0, "absolute", along=[0.0, 4.0, 0.0]))
    torch.testing.assert_close(along, plain + subspace.basis[1], **CLOSE)


def test_a_subspace_of_one_dimension_is_a_direction() -> None:
    model, transcripts, direction = model_of("qwen3"), texts([2]), direction_of()
    plain = read(model, transcripts, AddDirection(direction, 1.5))
    for along in ([4.0], torch.tensor([0.1])):  # its length does not count
        torch.testing.assert_close(read(model, transcripts, AddDirection(direction, 1.5, along=along)), plain, **CLOSE)
    assert torch.equal(
        read(model, transcripts, ClampDirection(direction, 2.0))[0],
        read(model, transcripts, ClampDirection(direction, [2.0]))[0],
    )


def test_several_sites_are_changed_in_one_pass() -> None:
    model, direction, ledger = model_of("llama"), direction_of(), Ledger()
    sites = [f"blocks.{layer}.hook_resid_post" for layer in range(3)]
    read(model, texts([3, 1]), AddDirection(direction, 1.0, sites=sites, scope="thinking:0.5-1"), ledger=ledger)
    for site in sites[:2]:  # nothing is read after the second
        assert ledger.positions("t1-0", site=site) == ledger.positions("t1-1", site=site) == [5, 6]


def by_mode(direction: Direction, mode: str, size: float, **place: object) -> Intervention:
    return {
        "add": lambda: AddDirection(direction, size, **place),
        "norm": lambda: AddDirection(direction, size / 10, "norm", **place),
        "ablate": lambda: AblateDirection(direction, **place),
        "clamp": lambda: ClampDirection(direction, [size] * direction.k, **place),
    }[mode]()


@settings(max_examples=12, deadline=None)
@given(
    name=st.sampled_from(ARCHITECTURES),
    side=st.sampled_from(["left", "right"]),
    k=st.integers(1, 4),
    size=st.floats(-4, 4),
    lengths=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    seed=st.integers(0, 50),
    scope=st.sampled_from(["all", "edge", "from-edge", "thinking", "thinking:0.5-1", "response"]),
)
def test_laws(name: str, side: str, k: int, size: float, lengths: list[int], seed: int, scope: str) -> None:
    model, transcripts = model_of(name), texts(lengths, seed)
    direction = direction_of(k, seed, positive=torch.ones(k), negative=torch.zeros(k))
    plain = read(model, transcripts, side=side)
    place = {"scope": scope}

    def changed(*changes: Intervention) -> list[Tensor]:
        return read(model, transcripts, *changes, side=side)

    ablate, clamp = AblateDirection(direction, **place), ClampDirection(direction, [size] * k, **place)
    add, subtract = (AddDirection(direction, sign * size, **place) for sign in (1, -1))
    torch.testing.assert_close(changed(ablate), changed(ablate, ablate), **CLOSE)
    torch.testing.assert_close(changed(ablate), changed(clamp, ablate), **CLOSE)  # what was set is removed
    torch.testing.assert_close(changed(clamp), changed(ablate, clamp), **CLOSE)
    torch.testing.assert_close(changed(clamp), changed(clamp, clamp), **CLOSE)
    torch.testing.assert_close(changed(add, subtract), plain, **CLOSE)
    torch.testing.assert_close(changed(ClampDirection(direction, [0.0] * k, **place)), changed(ablate), **CLOSE)
    step = torch.ones(k) / k**0.5 * size * direction.scale
    for before, after, both in zip(changed(ablate), changed(ablate, add), changed(add, ablate), strict=True):
        touched = (after != before).any(-1) if size else torch.zeros(len(before), dtype=torch.bool)
        torch.testing.assert_close(after[touched], before[touched] + step @ direction.basis, **CLOSE)
        torch.testing.assert_close(both, before, **CLOSE)  # the order matters: the last one decides


@pytest.mark.parametrize("mode", ["ablate", "add", "clamp", "norm"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_padding_and_batch_change_nothing(name: str, mode: str) -> None:
    model, transcripts = model_of(name), texts([4, 0, 2])
    change = by_mode(direction_of(), mode, 1.5, scope="from-edge")
    together = read(model, transcripts, change, site="ln_final.hook_out")
    left = read(model, transcripts, change, site="ln_final.hook_out", side="left")
    alone = [read(model, [text], change, site="ln_final.hook_out")[0] for text in transcripts]
    for one, other, third in zip(together, left, alone, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(one, third, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("mode", ["ablate", "add", "clamp", "norm"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3"])
def test_generation_is_that_of_repeated_whole_passes(name: str, mode: str) -> None:
    """With and without the KV cache, alone and in a left-padded batch; the reference is greedy choice by hand."""
    model = HookedModel(random_model(name), name=name)
    model.hf.generation_config.eos_token_id = None
    prompts = [Transcript.from_ids(f"p{n}", range(5, 9 + n)) for n in range(3)]
    change = by_mode(direction_of(8, 3, positive=torch.ones(8), negative=torch.zeros(8)), mode, 6.0)
    with model.intervene(change):
        runs = [model.generate(prompts, max_new_tokens=6, use_cache=use_cache) for use_cache in (True, False)]
        alone = [model.generate([prompt], max_new_tokens=6)[0] for prompt in prompts]
        by_hand = []
        for prompt in prompts:
            ids = list(prompt.input_ids)
            for _ in range(6):
                ids.append(int(model.logits([Transcript.from_ids("x", ids)], [-1]).argmax()))
            by_hand.append(ids[len(prompt) :])
    assert runs == [by_hand, by_hand] and alone == by_hand
    assert model.generate(prompts, max_new_tokens=6) != by_hand


@pytest.mark.parametrize(
    "site", ["hook_attn_out", "hook_mlp_out", "hook_resid_mid", "hook_resid_post", "hook_resid_pre"]
)
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_site_of_the_models_width(name: str, site: str) -> None:
    if site == "hook_resid_mid" and name in PARALLEL:
        with (
            pytest.raises(CliffscopeError, match="hook_resid_mid"),
            model_of(name).intervene(AblateDirection(direction_of(), sites=[f"blocks.1.{site}"])),
        ):
            pass
        return
    model, direction, ledger = model_of(name), direction_of(), Ledger()
    sites = [f"blocks.-1.{site}", f"blocks.0.{site}"]
    change = ClampDirection(direction, 1.25, sites=sites)
    if site == "hook_resid_mid":  # what is written back is seen one site on
        after = read(model, texts([1]), change, site="blocks.0.hook_resid_mid", ledger=ledger)[0]
    else:
        after = read(model, texts([1]), change, site=f"blocks.0.{site}", ledger=ledger)[0]
        torch.testing.assert_close(direction.coordinates(after), torch.full((10, 1), 1.25), **CLOSE)
    assert ledger.positions("t1-0", site=f"blocks.0.{site}") == list(range(10))


def test_low_precision_is_computed_in_float32_and_left_alone_elsewhere() -> None:
    model = HookedModel(random_model("llama").to(torch.bfloat16), name="llama")
    direction, transcripts, seen = direction_of(), texts([1]), []

    class Watch:
        def changes(self, model: HookedModel) -> dict:
            return {SITE: lambda value, tokens: (seen.append(value.clone()), value)[1]}

    read(model, transcripts, Watch(), ClampDirection(direction, 2.0, scope="close"), Watch())
    before, after = seen[0], seen[1]
    assert after.dtype == torch.bfloat16
    r = direction.vector
    expected = (before.float() + (2.0 - before.float() @ r)[..., None] * r).bfloat16()
    torch.testing.assert_close(after[:, 7:9], expected[:, 7:9], atol=0, rtol=2**-7)
    assert torch.equal(after[:, :7], before[:, :7]) and torch.equal(after[:, 9:], before[:, 9:])


def test_the_value_is_not_written_to() -> None:
    model = model_of("llama")
    for mode in ("ablate", "add", "clamp", "norm"):
        change = by_mode(direction_of(), mode, 1.0).changes(model)[SITE]
        value = torch.randn(1, 3, WIDTH, generator=torch.Generator().manual_seed(0))
        kept, version = value.clone(), value._version
        assert not torch.equal(change(value, TokenContext(torch.arange(3)[None])), kept)
        assert torch.equal(value, kept) and value._version == version


def test_no_dose_changes_nothing_and_says_so() -> None:
    model = model_of("llama")
    for change in (AddDirection(direction_of(), 0.0), AblateDirection(direction_of(), 0.0)):
        with pytest.warns(NothingChangedWarning, match="Direction was active in 1 calls and changed nothing"):
            with model.intervene(change):
                model.capture(texts([1]), [SITE], [0])


def test_what_does_not_fit_is_refused_before_anything_runs() -> None:
    model, direction = model_of("llama"), direction_of()
    refusals = {
        r"blocks\.1\.attn\.hook_z holds what heads write .* steer blocks\.1\.hook_attn_out": AblateDirection(
            direction, sites=["blocks.1.attn.hook_z"]
        ),
        r"Unknown site 'blocks\.1\.resid'": AblateDirection(direction, sites="blocks.1.resid"),
        r"no layer 3: the model has layers 0 to 2": AblateDirection(direction, sites="blocks.3.hook_resid_post"),
        r"does not say at which site it was fitted; give sites": AblateDirection(direction_of(site=None)),
        r"no site is given": AblateDirection(direction, sites=[]),
        r"width 8.* width 32": AddDirection(Direction.of(torch.ones(8), site=SITE), 1.0),
        r"direction: made for qwen, not for llama \(d_vocab 7 there, 96 here\)": AddDirection(
            direction_of(model="qwen", fingerprint={"d_vocab": "7"}), 1.0
        ),
    }
    for message, change in refusals.items():
        with pytest.raises(CliffscopeError, match=message), model.intervene(change):
            pass


def test_doses_and_targets_that_are_none() -> None:
    direction, subspace = direction_of(), direction_of(2)
    for alpha in (float("nan"), float("inf")):
        with pytest.raises(CliffscopeError, match="alpha: expected a finite number"):
            AddDirection(direction, alpha)
        with pytest.raises(CliffscopeError, match="strength: expected a finite number"):
            AblateDirection(direction, alpha)
        with pytest.raises(CliffscopeError, match="target: expected 1 finite number, one a dimension"):
            ClampDirection(direction, alpha)
    with pytest.raises(CliffscopeError, match="units 'sigma': expected one of scale, norm, absolute"):
        AddDirection(direction, 1.0, "sigma")
    with pytest.raises(CliffscopeError, match=r"subspace of 2 dimensions without class means .* give along"):
        AddDirection(subspace, 1.0)
    with pytest.raises(CliffscopeError, match="along: expected 2 finite numbers"):
        AddDirection(subspace, 1.0, along=[1.0, 2.0, 3.0])
    with pytest.raises(CliffscopeError, match="zero in the subspace"):
        AddDirection(subspace, 1.0, along=[0.0, 0.0])
    with pytest.raises(CliffscopeError, match="target: expected 2 finite numbers"):
        ClampDirection(subspace, 1.0)
    with pytest.raises(CliffscopeError, match="target 'up': expected positive, negative, or numbers"):
        ClampDirection(direction, "up")
    with pytest.raises(CliffscopeError, match="does not say where its positive class lies"):
        ClampDirection(direction, "positive")
    with pytest.raises(CliffscopeError, match="scope 'edges': expected one of all"):
        AblateDirection(direction, scope="edges")
