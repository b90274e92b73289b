"""Ways to change a forward pass: head ablation, masks, patching, steering, directions."""
