# What every rule needs: the package knows the graph, the rules only name files and resources.
from meetara_build.engine.rules import Rules

BUILD = Rules(config)
ROOT = BUILD.root


wildcard_constraints:
    domain="|".join(BUILD.domains),
    base="|".join(BUILD.bases),


localrules:
    all_domains,


# `snakemake nutrition` builds that domain.
for domain in BUILD.domains:

    rule:
        name:
            domain
        input:
            BUILD.package(domain),
        localrule: True


MERGED = f"{ROOT}/{{domain}}/merged"
MERGED = f"{MERGED}/manifest.json" if BUILD.keep_merged else temp(directory(MERGED))
