# gguf: models as llama.cpp reads them. A base's own F16 file; a domain's F16 and quantized files, and its adapter alone.
rule base_gguf:
    input:
        BUILD.inputs("base_gguf"),
    output:
        BUILD.outputs("base_gguf"),
    log:
        BUILD.log("base_gguf"),
    priority: BUILD.priority("base_gguf")
    threads: BUILD.threads("base_gguf")
    resources:
        mem_mb=BUILD.memory_mb("base_gguf"),
    params:
        fingerprint=BUILD.fingerprint("base_gguf"),
    shell:
        BUILD.shell("base_gguf")


# One rule for each set of types.
for kind in BUILD.variants("gguf"):

    rule:
        name:
            kind.name
        input:
            BUILD.inputs("gguf"),
        output:
            kind.outputs,
        log:
            BUILD.log("gguf"),
        wildcard_constraints:
            domain=kind.wildcard,
        priority: BUILD.priority("gguf")
        threads: BUILD.threads("gguf")
        resources:
            mem_mb=BUILD.memory_mb("gguf"),
        params:
            fingerprint=BUILD.fingerprint("gguf"),
        shell:
            BUILD.shell("gguf")
