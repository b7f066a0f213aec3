"""What quant types take, how far they are from the weights, and which is the next larger one."""

from meetara_build.llama_cpp.quants import LARGER, STORAGE, Storage

__all__ = ["LARGER", "STORAGE", "Storage"]
