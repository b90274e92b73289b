"""What pages take for granted and a reader has: names that stand for the reader's own things."""

PRELUDES = {
    "interp/models/interop/README.md": """
import torch
from interventions import ScaleHeads
from tests.docs.material import organism, rollouts

a, b = ScaleHeads([(3, 1)], "all", gamma=0.5), ScaleHeads([(4, 5)], "all", gamma=0.5)
transcript = organism().transcripts().build(rollouts()[0])
prompts = [organism().transcripts().prompt(rollouts()[0].prompt)]
ids, prompt_ids = torch.tensor([transcript.input_ids]), torch.tensor([prompts[0].input_ids])
mask, stop = torch.ones_like(prompt_ids), organism().tokenizer.eos_token_id
""",
}
"""Python by page, run before its first block."""
