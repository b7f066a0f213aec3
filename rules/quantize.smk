# base/NAME/quantized: the base's own file in smaller types, for adapters that are used as they are (gguf.files: lora).
rule quantize:
    input:
        BUILD.inputs("quantize"),
    output:
        BUILD.outputs("quantize"),
    log:
        BUILD.log("quantize"),
    priority: BUILD.priority("quantize")
    threads: BUILD.threads("quantize")
    resources:
        mem_mb=BUILD.memory_mb("quantize"),
    params:
        fingerprint=BUILD.fingerprint("quantize"),
    shell:
        BUILD.shell("quantize")
