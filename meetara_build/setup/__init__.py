"""What pip alone does not install: llama.cpp with its converter, and the bases that come out of
packages."""
