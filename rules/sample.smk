# base/NAME/sample: a pinned sample of training records, which stands for all domains' text.
rule sample:
    input:
        BUILD.inputs("sample"),
    output:
        BUILD.outputs("sample"),
    log:
        BUILD.log("sample"),
    priority: BUILD.priority("sample")
    threads: BUILD.threads("sample")
    resources:
        mem_mb=BUILD.memory_mb("sample"),
    params:
        fingerprint=BUILD.fingerprint("sample"),
    shell:
        BUILD.shell("sample")
