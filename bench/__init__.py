"""Every figure of docs/figures.md, as a command: ``python -m bench`` or one module of this
folder."""
