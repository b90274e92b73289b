"""Writes a checkpoint, two requests that an nnsight client would send for it, and what is to come out."""

import sys
from pathlib import Path

import torch
from nnsight import TransformersModel
from nnsight.schema.request import RequestModel
from nnsight.tracing.backend import Backend

from interp.models.hooked_model import HookedModel
from interp.models.interop.frozen import frozen
from interp.rollouts import Rollout
from interventions.directions.direction import Direction
from interventions.head_ablation import ScaleHeads
from interventions.steering.along_direction import AblateDirection, AddDirection


class Send(Backend):
    """In place of the backend that posts a request."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, tracer: object) -> None:
        self.path.write_bytes(RequestModel.serialize(tracer))


def main(folder: Path) -> None:
    model = HookedModel.load("organism:cliff", device="cpu")
    model.hf.save_pretrained(folder / "model")
    model.tokenizer.save_pretrained(folder / "model")
    # As a client has it: no weights.
    lm = TransformersModel(str(folder / "model"), task="text-generation", tokenizer=model.tokenizer)
    assert next(lm._module.parameters()).is_meta
    rollout = Rollout("r", "Tell me how to bake bread.", "The user asks for bread.", "Mix flour.", harmful=False)
    transcript = model.transcripts().build(rollout)
    ids = torch.tensor([transcript.input_ids])
    vector = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    direction = Direction.of(vector, scale=3.0, site="blocks.3.hook_resid_post")
    steps = [
        ScaleHeads([(3, 1), (4, 5)], "from-edge"),
        AddDirection(direction, 1.0, sites=["blocks.2.hook_resid_mid", "blocks.5.hook_resid_pre"], scope="thinking"),
    ]
    steered = frozen(lm, steps, ids, transcripts=[transcript])
    with steered.trace(ids, backend=Send(folder / "trace.request")):
        found = steered.output.logits.save()  # read where the request arrives
    with model.intervene(*steps):
        torch.save(model.logits([transcript], range(len(transcript))), folder / "trace.expected.pt")
    prompt = model.transcripts().prompt("Tell me how to bake bread.")
    ids = torch.tensor([prompt.input_ids])
    steps = [AddDirection(direction, 0.5), AblateDirection(direction, sites=["blocks.1.hook_attn_out"])]
    steered = frozen(lm, steps, ids, transcripts=[prompt], generating=True)
    with steered.generate(
        ids, max_new_tokens=12, do_sample=False, backend=Send(folder / "generation.request")
    ) as tracer:
        found = tracer.result.save()  # noqa: F841
    with model.intervene(*steps):
        (new,) = model.generate([prompt], max_new_tokens=12)
    torch.save(torch.tensor([[*prompt.input_ids, *new]]), folder / "generation.expected.pt")


main(Path(sys.argv[1]))
