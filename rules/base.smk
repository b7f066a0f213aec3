# base/NAME/model: the model that adapters are trained on, made or fetched once and shared.
rule base:
    input:
        BUILD.inputs("base"),
    output:
        BUILD.outputs("base"),
    log:
        BUILD.log("base"),
    priority: BUILD.priority("base")
    threads: BUILD.threads("base")
    resources:
        mem_mb=BUILD.memory_mb("base"),
        gpu=BUILD.gpus("base"),
        slot=BUILD.slots("base"),
    params:
        fingerprint=BUILD.fingerprint("base"),
    shell:
        BUILD.shell("base")
