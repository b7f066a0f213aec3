"""The arithmetic of a training step: rows packed with several records, attention, loss, LoRA
products, frozen matrices.
"""
