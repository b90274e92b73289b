"""Reading and changing compiled models.

Code that torch.compile made does not look whether hooks were added since: what is registered on a model that ran before
would silently do nothing. Where hooks come and go, the model is therefore run as it was written; what was compiled is
kept, and used again afterwards. (A head mask that stays on during training is compiled into the model instead: see
`interventions.masks.compiled_code`.)
"""

from contextlib import AbstractContextManager

import torch


def uncompiled() -> AbstractContextManager[None]:
    """Inside the `with` block, nothing runs as compiled code."""
    stance: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return stance
