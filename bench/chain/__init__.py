"""The whole chain on the real base, from records to files that llama.cpp runs and their held-out
loss: a naive recipe, the best practice of peers, and this tool, side by side.

``python -m bench.chain --work FOLDER`` runs what FOLDER has no figures of yet, and keeps the table.
What is compared, and what is not, is told in ``bench.chain.recipes``.
"""
