# base/NAME/corpus: the text that a base made here is pretrained on, a share of its domains' training records.
rule corpus:
    input:
        BUILD.inputs("corpus"),
    output:
        BUILD.outputs("corpus"),
    log:
        BUILD.log("corpus"),
    priority: BUILD.priority("corpus")
    threads: BUILD.threads("corpus")
    resources:
        mem_mb=BUILD.memory_mb("corpus"),
    params:
        fingerprint=BUILD.fingerprint("corpus"),
    shell:
        BUILD.shell("corpus")
