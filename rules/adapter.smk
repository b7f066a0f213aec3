# DOMAIN/adapter: LoRA weights trained on the domain's records.
rule adapter:
    input:
        BUILD.inputs("adapter"),
    output:
        BUILD.outputs("adapter"),
    log:
        BUILD.log("adapter"),
    priority: BUILD.priority("adapter")
    threads: BUILD.threads("adapter")
    resources:
        mem_mb=BUILD.memory_mb("adapter"),
        gpu=BUILD.gpus("adapter"),
        slot=BUILD.slots("adapter"),
    params:
        fingerprint=BUILD.fingerprint("adapter"),
    shell:
        BUILD.shell("adapter")
