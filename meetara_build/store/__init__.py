"""Artifacts: their manifests and contents, kept by digest; the journal of runs. Light on imports: a
stage answered from here should cost little more than starting Python.
"""
