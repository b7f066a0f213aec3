# base/NAME/imatrix: how strongly the columns of the base's weights are used, for its domains' quantized files.
rule imatrix:
    input:
        BUILD.inputs("imatrix"),
    output:
        BUILD.outputs("imatrix"),
    log:
        BUILD.log("imatrix"),
    priority: BUILD.priority("imatrix")
    threads: BUILD.threads("imatrix")
    resources:
        mem_mb=BUILD.memory_mb("imatrix"),
    params:
        fingerprint=BUILD.fingerprint("imatrix"),
    shell:
        BUILD.shell("imatrix")
