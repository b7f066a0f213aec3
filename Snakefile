# The jobs of meetara-build: `snakemake --profile local all_domains`, or a domain's name, or a file.
from snakemake.utils import min_version

min_version("9.27")


include: "rules/common.smk"


rule all_domains:
    default_target: True
    input:
        [BUILD.package(domain) for domain in BUILD.domains],


include: "rules/base.smk"
include: "rules/dataset.smk"
include: "rules/adapter.smk"
include: "rules/merge.smk"
include: "rules/gguf.smk"
include: "rules/evaluate.smk"
include: "rules/package.smk"
