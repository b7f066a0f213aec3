# DOMAIN/evaluation: held-out loss of base, F16 and each quantized file, through llama.cpp.
rule evaluate:
    input:
        BUILD.inputs("evaluate"),
    output:
        BUILD.outputs("evaluate"),
    log:
        BUILD.log("evaluate"),
    priority: BUILD.priority("evaluate")
    threads: BUILD.threads("evaluate")
    resources:
        mem_mb=BUILD.memory_mb("evaluate"),
    params:
        fingerprint=BUILD.fingerprint("evaluate"),
    shell:
        BUILD.shell("evaluate")
