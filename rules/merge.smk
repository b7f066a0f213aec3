# DOMAIN/merged: base and adapter as one model; deleted once its GGUF files are made, unless keep_merged is set.
for kind in BUILD.merges():

    rule:
        name:
            kind.name
        input:
            BUILD.inputs("merge"),
        output:
            (
                f"{ROOT}/{{domain}}/merged/manifest.json"
                if kind.kept
                else temp(directory(f"{ROOT}/{{domain}}/merged"))
            ),
        log:
            f"{ROOT}/logs/{{domain}}/merge.log",
        wildcard_constraints:
            domain=kind.wildcard,
        priority: BUILD.priority("merge")
        threads: BUILD.threads("merge")
        resources:
            mem_mb=BUILD.memory_mb("merge"),
        params:
            fingerprint=BUILD.fingerprint("merge"),
        shell:
            BUILD.shell("merge", "{wildcards.domain}")
