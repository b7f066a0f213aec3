# DOMAIN/merged: base and adapter as one model; deleted once its GGUF files are made, unless keep_merged is set.
rule merge:
    input:
        BUILD.inputs("merge"),
    output:
        MERGED if BUILD.keep_merged else temp(directory(MERGED)),
    log:
        f"{ROOT}/logs/{{domain}}/merge.log",
    priority: 1
    threads: BUILD.threads("merge")
    resources:
        mem_mb=BUILD.memory_mb("merge"),
    params:
        fingerprint=BUILD.fingerprint("merge"),
    shell:
        BUILD.shell("merge", "{wildcards.domain}")
