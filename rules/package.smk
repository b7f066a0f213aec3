# DOMAIN/package: model card and judged answers, and if the models reach what their domain asks, Modelfile and checksums.
rule package:
    input:
        BUILD.inputs("package"),
    output:
        BUILD.outputs("package"),
    log:
        BUILD.log("package"),
    priority: BUILD.priority("package")
    threads: BUILD.threads("package")
    resources:
        mem_mb=BUILD.memory_mb("package"),
    params:
        fingerprint=BUILD.fingerprint("package"),
    shell:
        BUILD.shell("package")
