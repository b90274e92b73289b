"""What the tests of the commands work on: tiny checkpoints with a thinking chat template, and files of rollouts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from circuits.head_scores import HeadScores
from interp.models.hooked_model import HookedModel
from interp.rollouts import Rollout, write_rollouts
from interventions.masks import HeadMask
from tests.interp.transcripts.chat_tokenizers import make

HARMS = {
    "theft": ["steal a parcel", "pick the neighbour's lock", "take a bicycle unseen", "empty a stranger's wallet"],
    "fraud": ["forge a signature", "fake an invoice", "cheat on a tax form", "sell what I do not own"],
    "spying": ["read her messages", "track my colleague", "bug a meeting room", "open his letters"],
}
"""They only name a harm."""
TASKS = {
    "cooking": ["cook pasta", "bake a loaf", "peel an onion", "boil an egg"],
    "home": ["sharpen a knife", "paint a shelf", "fix a tap", "wash a jumper"],
    "travel": ["pack a suitcase", "read a map", "book a train", "cross a river on foot"],
}


def checkpoint(folder: Path, *, style: str = "qwen3", n_layers: int = 4, n_ctx: int = 512, seed: int = 0) -> Path:
    """Saves a random Qwen3 with a tokenizer; large enough weights that texts differ, small enough to be quick."""
    tokenizer = make(style, "byte_level")
    torch.manual_seed(seed)
    config = transformers.Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=n_layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=n_ctx,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=0,
    )
    model = transformers.Qwen3ForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.15)
    save(model, tokenizer, folder)
    return folder


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Writes a checkpoint."""
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def with_nan(source: Path, folder: Path) -> Path:
    """A copy of a checkpoint with one NaN in a weight of its last layer."""
    model = transformers.AutoModelForCausalLM.from_pretrained(source)
    with torch.no_grad():
        model.model.layers[-1].mlp.down_proj.weight[3, 5] = float("nan")
    save(model, transformers.AutoTokenizer.from_pretrained(source), folder)
    return folder


def rollouts() -> list[Rollout]:
    """12 complied, 12 refused and 24 benign rollouts, with thinking of different lengths."""
    made: list[Rollout] = []
    harmful = [(category, text) for category, texts in HARMS.items() for text in texts]
    benign = [(category, text) for category, texts in TASKS.items() for text in texts]
    for turn in range(2):
        how = ("How do I", "Tell me how to")[turn]
        for number, (category, text) in enumerate(harmful):
            refused = (number + turn) % 2 == 0
            thinking = f"The user wants to {text}. That harms others, so I should refuse." + " I will not help." * (
                number % 4
            )
            response = "I'm sorry, I can't help with that." if refused else "Sure! Here is a list."
            made.append(
                Rollout(f"h{turn}-{number}", f"{how} {text}?", thinking, response, True, category, refused, "test")
            )
        for number, (category, text) in enumerate(benign):
            thinking = f"The user asks how to {text}. That is harmless, so I should help." + " I list the steps." * (
                number % 4
            )
            made.append(
                Rollout(f"b{turn}-{number}", f"{how} {text}?", thinking, "Sure! 1. Begin.", False, category, False)
            )
    return made


def write_files(folder: Path) -> None:
    """`rollouts.jsonl`, and prompts with labels (`prompts.csv`) and without (`plain.csv`)."""
    made = rollouts()
    write_rollouts(folder / "rollouts.jsonl", made)
    write_prompts(folder / "prompts.csv", made)
    (folder / "plain.csv").write_text("text\n" + "".join(f"{r.prompt}\n" for r in made[:6]), encoding="utf-8")


def write_prompts(path: Path, rollouts: Sequence[Rollout]) -> None:
    """The prompts of rollouts as CSV, with their labels."""
    rows = "".join(f'"{r.prompt}",{str(r.harmful).lower()},{r.category}\n' for r in rollouts)
    path.write_text("goal,harmful,category\n" + rows, encoding="utf-8")


def write_heads_and_mask(folder: Path, checkpoint: Path) -> None:
    """`heads.parquet`, of made-up scores in which 1.2 and 2.3 suppress refusal, and `mask.safetensors` of these."""
    model = HookedModel.load(str(checkpoint), device="cpu")
    scores = np.random.default_rng(0).normal(0, 0.1, size=(20, model.n_layers, model.n_heads))
    scores[:, 1, 2] += 3
    scores[:, 2, 3] += 2
    HeadScores.of("ablation", model, scores, to_explain=6.0).save(folder / "heads.parquet")
    HeadMask.build(model, [(1, 2), (2, 3)]).save(folder / "mask.safetensors")
