"""Figures of the context: ``python -m bench.context`` for all, or a module of it for one."""
