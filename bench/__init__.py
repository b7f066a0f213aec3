"""Every figure the README quotes, as a command: ``python -m bench`` or one module of this folder."""
