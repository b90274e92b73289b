"""What torch.compile must be told of hooks that come and go.

Compiled code does not look whether hooks were added or removed since it was made. Worse, code made for one block runs
for another of the same kind: where blocks are compiled one by one, the code of a block without masked heads would, from
the second pass on, run for all the others. So while a mask is attached, dynamo is told to look
(`skip_nnmodule_hook_guards`), and what was compiled before is forgotten.
"""

import torch

_attached = 0
_setting_before = True


def hooks_added() -> None:
    """To be called after hooks were put on a model, once for each `hooks_removed`."""
    global _attached, _setting_before
    import torch._dynamo.config as dynamo  # transformers has imported it by now

    if _attached == 0:
        _setting_before = dynamo.skip_nnmodule_hook_guards
        dynamo.skip_nnmodule_hook_guards = False
    _attached += 1
    torch.compiler.reset()


def hooks_removed() -> None:
    """To be called after they were taken off."""
    global _attached
    import torch._dynamo.config as dynamo

    _attached -= 1
    if _attached == 0:
        dynamo.skip_nnmodule_hook_guards = _setting_before
    torch.compiler.reset()
