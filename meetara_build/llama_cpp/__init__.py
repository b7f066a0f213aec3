"""llama.cpp as this package uses it: its files, its types, a model that is run."""
