"""LoRA files for Wan: what one holds, which model and expert it is for, and how its tensors are named."""
