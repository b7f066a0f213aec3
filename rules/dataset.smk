# DOMAIN/dataset: clean records, split into train, validation and test.
rule dataset:
    input:
        BUILD.inputs("dataset"),
    output:
        BUILD.outputs("dataset"),
    log:
        BUILD.log("dataset"),
    priority: BUILD.priority("dataset")
    threads: BUILD.threads("dataset")
    resources:
        mem_mb=BUILD.memory_mb("dataset"),
    params:
        fingerprint=BUILD.fingerprint("dataset"),
    shell:
        BUILD.shell("dataset")
