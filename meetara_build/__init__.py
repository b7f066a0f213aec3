"""A build tool like make, for models: datasets to proven GGUF files, one domain at a time."""

import os

# Threads of PyTorch that have nothing to do sleep: those that spin, as is the default, keep a core from the next job. Where two jobs of
# two threads share two cores that is more than five times the time; alone it costs nothing that could be measured.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
