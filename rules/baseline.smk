# DOMAIN/baseline: what the base scores on the held-out records, whatever is trained.
rule baseline:
    input:
        BUILD.inputs("baseline"),
    output:
        BUILD.outputs("baseline"),
    log:
        BUILD.log("baseline"),
    priority: BUILD.priority("baseline")
    threads: BUILD.threads("baseline")
    resources:
        mem_mb=BUILD.memory_mb("baseline"),
    params:
        fingerprint=BUILD.fingerprint("baseline"),
    shell:
        BUILD.shell("baseline")
