"""A build tool like make, for models: datasets to proven GGUF files, one domain at a time."""
