"""From steps to files: the stage run, the warm process that jobs are forked from, and Snakemake."""
