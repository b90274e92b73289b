"""Runs requests as a server does: the model is here, this package and what else it stands on are not."""

import sys
from pathlib import Path

for absent in ("interp", "probes", "interventions", "jaxtyping", "transformer_lens", "pandas"):
    sys.modules[absent] = None  # an import of it fails


def main(folder: Path) -> None:
    import torch
    from nnsight import TransformersModel
    from nnsight.schema.request import RequestModel
    from nnsight.tracing.tracer import dec, inc

    try:
        import interp  # noqa: F401
    except ImportError:
        print("cannot import interp")  # noqa: T201
    lm = TransformersModel(str(folder / "model"), task="text-generation", dispatch=True)
    for name in ("trace", "generation"):
        request = (folder / f"{name}.request").read_bytes()
        tracer = RequestModel.deserialize(request, lm._remoteable_persistent_objects())
        inc()
        try:
            with torch.no_grad():
                tracer.execute(tracer.info.code)
        finally:
            dec()
        torch.save(tracer.info.frame.f_locals["found"], folder / f"{name}.found.pt")


main(Path(sys.argv[1]))
