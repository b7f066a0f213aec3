# base/NAME/start: an adapter trained once on the pinned sample, from which the trainings of domains begin.
rule start:
    input:
        BUILD.inputs("start"),
    output:
        BUILD.outputs("start"),
    log:
        BUILD.log("start"),
    priority: BUILD.priority("start")
    threads: BUILD.threads("start")
    resources:
        mem_mb=BUILD.memory_mb("start"),
        gpu=BUILD.gpus("start"),
        slot=BUILD.slots("start"),
    params:
        fingerprint=BUILD.fingerprint("start"),
    shell:
        BUILD.shell("start")
