# DOMAIN/gguf: the merged model as llama.cpp reads it, F16 and quantized, and the adapter alone. One rule for each set of types.
for kind in BUILD.ggufs():

    rule:
        name:
            kind.name
        input:
            BUILD.inputs("gguf"),
        output:
            f"{ROOT}/{{domain}}/gguf/manifest.json",
            [f"{ROOT}/{{domain}}/gguf/{file}" for file in kind.files],
        log:
            f"{ROOT}/logs/{{domain}}/gguf.log",
        wildcard_constraints:
            domain=kind.wildcard,
        priority: BUILD.priority("gguf")
        threads: BUILD.threads("gguf")
        resources:
            mem_mb=BUILD.memory_mb("gguf"),
        params:
            fingerprint=BUILD.fingerprint("gguf"),
        shell:
            BUILD.shell("gguf", "{wildcards.domain}")
