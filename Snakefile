# The jobs of meetara-build: `snakemake --profile local all_domains`, or a domain's name, or a file.
from snakemake.utils import min_version

min_version("9.27")


# Only read with `--sdm apptainer`; jobs otherwise run in the Python that Snakemake runs in.
container: "docker://python:3.11"


include: "rules/common.smk"


rule all_domains:
    default_target: True
    input:
        BUILD.everything,


include: "rules/base.smk"
include: "rules/dataset.smk"
include: "rules/adapter.smk"
include: "rules/merge.smk"
include: "rules/gguf.smk"
include: "rules/evaluate.smk"
include: "rules/package.smk"
include: "rules/report.smk"
