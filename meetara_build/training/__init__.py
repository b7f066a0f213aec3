"""The trainer: batches, loss, loop, checkpoints, LoRA."""
