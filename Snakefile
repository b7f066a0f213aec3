# The jobs of meetara-build: `snakemake --profile conf/profile/local all_domains`, or a domain's name, or a file.
from snakemake.utils import min_version

min_version("9.27")


# For `snakemake --lint` alone, which wants an image for every rule and knows no exception. No job can run in this one, since there is
# no meetara-build in it: never use `--sdm apptainer`. Jobs run in the Python that Snakemake runs in.
container: "docker://python:3.11"


include: "rules/common.smk"


rule all_domains:
    default_target: True
    input:
        BUILD.everything,


for stage in BUILD.stages:

    include: f"rules/{stage}.smk"
