"""The stages: each turns a recipe and input artifacts into files, and returns its metrics."""
