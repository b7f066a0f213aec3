"""A build tool like make, for models: datasets to proven GGUF files, one domain at a time."""

import os

# Threads of PyTorch that have nothing to do sleep: those that spin, as is the default, keep a core
# from the next job. Where processes of two threads share two cores that is several times the time.
# It is no gain for one alone: pretraining `tiny` took as long (19 and 22 s), tests that train still
# smaller models 1.6 times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
