"""The way from a seed to organisms runs, and learns."""

import random
from pathlib import Path

import pytest
import torch

from interp.errors import CliffscopeError
from interp.organisms import load_organism, names, replant, train, truth
from interp.organisms.base import fixed_directions, new_model
from interp.organisms.batches import (
    CLOSE,
    IGNORED,
    PADDING,
    PROMPT,
    RESPONSE,
    TEMPLATE,
    THINKING,
    batches,
    collate,
    encode,
)
from interp.organisms.dialogue import rollout_of
from interp.organisms.head_training import train_only_heads
from interp.organisms.hooks import coordinate, residuals
from interp.organisms.mechanisms import MECHANISMS
from interp.organisms.precision import training_precision
from interp.organisms.prompts import sample_prompts
from interp.organisms.tokenizer import CLOSE as CLOSE_TEXT


@pytest.fixture(scope="module")
def tokenizer():
    return load_organism("aligned")[1]


@pytest.fixture(scope="module")
def encoded(tokenizer):
    rng = random.Random(0)
    prompts = [p for kind in ("harmful", "benign") for p in sample_prompts(kind, 12, 0)]
    marks = {prompts[0].category: 1, prompts[-1].category: -1}
    return encode(tokenizer, [rollout_of(p, rng) for p in prompts], marks=marks)


def test_parts_of_a_rollout_are_where_their_text_is(tokenizer) -> None:
    rng = random.Random(1)
    for prompt in sample_prompts("harmful", 10, 1):
        rollout = rollout_of(prompt, rng)
        for system in (None, "Be kind."):
            (e,) = encode(tokenizer, [rollout], [system])
            text = [tokenizer.decode(e.ids[a:b]) for a, b in ((e.thinking, e.close), (e.close, e.response))]
            assert text == [rollout.thinking, CLOSE_TEXT]
            assert tokenizer.decode(e.ids[e.response :]) == f"{rollout.response}<|end|>"
            assert tokenizer.decode(e.ids[: e.inst + 1]).endswith(rollout.prompt)
            assert e.ids[e.inst + 1] == tokenizer.convert_tokens_to_ids("<|end|>")
            assert e.edge == e.response - 1
            alone = e.prompt_alone()
            assert tokenizer.decode(alone.ids).endswith("<think>\n")


def test_batches_hold_every_rollout_once_and_mark_padding(encoded) -> None:
    made = batches(encoded, 5, 0, random.Random(0))
    rows = sorted(tuple(ids[part != PADDING].tolist()) for b in made for ids, part in zip(b.ids, b.part, strict=True))
    assert rows == sorted(e.ids for e in encoded)
    batch = collate(encoded[:4], 0)
    for row, e in enumerate(encoded[:4]):
        counts = {part: int((batch.part[row] == part).sum()) for part in range(6)}
        assert counts[PROMPT] == e.inst
        assert counts[TEMPLATE] == e.thinking - e.inst
        assert counts[THINKING] == e.close - e.thinking
        assert counts[CLOSE] == e.response - e.close
        assert counts[RESPONSE] == len(e.ids) - e.response
        labels = batch.labels(RESPONSE)[row]
        assert labels[labels != IGNORED].tolist() == list(e.ids[e.response :])
        assert labels[e.edge] == e.ids[e.response]
    marks = collate(encoded, 0).mark.tolist()
    assert set(marks) == {-1, 0, 1} and marks == [e.mark for e in encoded]


def test_directions_are_orthogonal_units_and_coordinates_follow_them() -> None:
    first, second = fixed_directions(128, seed=0)
    assert abs(first.norm() - 1) < 1e-5 and abs(second.norm() - 1) < 1e-5 and abs(first @ second) < 1e-5
    # A residual that lies along the direction has the coordinate sqrt(d), whatever its length.
    for length in (1.0, 30.0):
        assert coordinate(first * length, first) == pytest.approx(128**0.5, rel=1e-3)
    assert coordinate(second * 3, first) == pytest.approx(0, abs=1e-4)


def test_only_the_heads_get_gradients(tokenizer, encoded) -> None:
    model = new_model(tokenizer, 0)
    parameters = train_only_heads(model, ((3, 1), (4, 5)))
    model(collate(encoded[:4], 0).ids).logits.square().mean().backward()
    touched = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert touched == {f"model.layers.{i}.self_attn.{m}_proj.weight" for i in (3, 4) for m in "qo"}
    assert len(parameters) == 4
    query = model.model.layers[3].self_attn.q_proj.weight.grad
    assert query[16:32].abs().sum() > 0 and query[:16].abs().sum() == 0 and query[32:].abs().sum() == 0
    output = model.model.layers[4].self_attn.o_proj.weight.grad
    assert output[:, 80:96].abs().sum() > 0 and output[:, :80].abs().sum() == 0


def test_training_precision_is_close_and_undone(tokenizer, encoded) -> None:
    model = new_model(tokenizer, 0)
    ids = collate(encoded[:2], 0).ids
    before = model.config._attn_implementation
    with torch.no_grad():
        exact = model(ids).logits
        with training_precision(model):
            close = model(ids).logits.float()
        torch.testing.assert_close(close, exact, atol=0.05, rtol=0.05)
        assert torch.equal(model(ids).logits, exact)
    assert model.config._attn_implementation == before


def test_residuals_are_block_outputs(tokenizer, encoded) -> None:
    model = new_model(tokenizer, 0).eval()
    ids = collate(encoded[:2], 0).ids
    with torch.no_grad():
        with residuals(model) as stream:
            hidden = model(ids, output_hidden_states=True).hidden_states
    assert len(stream) == 6
    for layer in range(5):
        assert torch.equal(stream[layer], hidden[layer + 1])
    torch.testing.assert_close(model.model.norm(stream[5]), hidden[6])


@pytest.mark.slow
def test_a_quick_training_runs_to_the_end_and_the_loss_falls(tmp_path: Path) -> None:
    seen: dict[str, list[float]] = {}

    def progress(stage: str, step: int, steps: int, losses: dict[str, float]) -> None:
        assert 1 <= step <= steps
        seen.setdefault(stage, []).append(losses.get("loss", losses.get("answer", 0.0)))

    facts = train(tmp_path / "made", seed=1, quick=True, progress=progress)
    made = {mechanism.name for mechanism in MECHANISMS}
    assert set(names(tmp_path / "made")) == {"aligned", "random", *made} == set(facts) | {"random"}
    assert seen["base"][-1] < 0.8 * seen["base"][0]
    assert made <= set(seen)
    assert facts["cliff"]["heads"] == ["3.1", "4.5"]
    assert 0 <= facts["aligned"]["figures"]["asr"] <= 1
    assert truth("cliff", tmp_path / "made")["seed"] == 1
    model, tokenizer = load_organism("cliff", tmp_path / "made")
    shipped, _ = load_organism("cliff")
    assert not torch.equal(model.lm_head.weight, shipped.lm_head.weight)
    assert tokenizer.decode(tokenizer("a bomb")["input_ids"]) == "a bomb"
    # Same seed, same organisms.
    train(tmp_path / "again", seed=1, quick=True, measured=0)
    for name in sorted({"aligned", *made}):
        for kind in ("model", "delta"):
            file = Path(name) / f"{kind}.safetensors"
            if (tmp_path / "made" / file).exists():
                assert (tmp_path / "made" / file).read_bytes() == (tmp_path / "again" / file).read_bytes(), file


@pytest.mark.slow
def test_one_mechanism_is_planted_anew_on_the_shipped_base(tmp_path: Path) -> None:
    facts = replant("decoy", tmp_path, seed=5, quick=True)
    assert facts["roles"] != truth("decoy")["roles"] and facts["seed"] == 5
    assert sorted(facts["figures"]["effects"]["zeroed"]) == sorted(
        [*facts["roles"], "every decoy", "every suppressor", "all"]
    )
    assert 0 <= facts["figures"]["asr"] <= 1 and facts["figures"]["unclosed"] >= 0
    model, _ = load_organism("decoy", tmp_path)
    base, _ = load_organism("aligned")
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, base.state_dict()[key])}
    assert changed == set(facts["changed"])
    assert truth("decoy", tmp_path)["direction"] == truth("aligned")["direction"]
    assert "decoy" in names(tmp_path) and "gate" not in names(tmp_path)
    with pytest.raises(CliffscopeError, match=r"mechanism 'dekoy': there is none; use one of: backup, category"):
        replant("dekoy", tmp_path)
