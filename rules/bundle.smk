# bundle/NAME: a base once, with the adapters of many domains, to take along.
rule bundle:
    input:
        BUILD.inputs("bundle"),
    output:
        BUILD.outputs("bundle"),
    log:
        BUILD.log("bundle"),
    priority: BUILD.priority("bundle")
    threads: BUILD.threads("bundle")
    resources:
        mem_mb=BUILD.memory_mb("bundle"),
    params:
        fingerprint=BUILD.fingerprint("bundle"),
    shell:
        BUILD.shell("bundle")
