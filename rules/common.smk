# What every rule needs: the package knows the graph, the rules only name files and resources.
from meetara_build.engine.rules import Rules

BUILD = Rules(config)


wildcard_constraints:
    domain="|".join(BUILD.domains),
    base="|".join(BUILD.bases),
    bundle="|".join(BUILD.bundles),


localrules:
    all_domains,


# `snakemake nutrition` builds that domain.
for domain in BUILD.domains:

    rule:
        name:
            domain
        input:
            BUILD.results(domain),
        localrule: True
