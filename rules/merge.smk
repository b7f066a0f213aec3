# DOMAIN/merged: base and adapter as one model; deleted once its GGUF files are made, unless keep_merged is set.
for kind in BUILD.variants("merge"):

    rule:
        name:
            kind.name
        input:
            BUILD.inputs("merge"),
        output:
            temp(directory(kind.temporary)) if kind.temporary else kind.outputs,
        log:
            BUILD.log("merge"),
        wildcard_constraints:
            domain=kind.wildcard,
        priority: BUILD.priority("merge")
        threads: BUILD.threads("merge")
        resources:
            mem_mb=BUILD.memory_mb("merge"),
        params:
            fingerprint=BUILD.fingerprint("merge"),
        shell:
            BUILD.shell("merge")
