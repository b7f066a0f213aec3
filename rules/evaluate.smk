# DOMAIN/evaluation.json: held-out loss of base, F16 and each quantized file, through llama.cpp.
rule evaluate:
    input:
        BUILD.inputs("evaluate"),
    output:
        f"{ROOT}/{{domain}}/evaluation.manifest.json",
        f"{ROOT}/{{domain}}/evaluation.json",
    log:
        f"{ROOT}/logs/{{domain}}/evaluate.log",
    priority: BUILD.priority("evaluate")
    threads: BUILD.threads("evaluate")
    resources:
        mem_mb=BUILD.memory_mb("evaluate"),
    params:
        fingerprint=BUILD.fingerprint("evaluate"),
    shell:
        BUILD.shell("evaluate", "{wildcards.domain}")
