# DOMAIN/package: Modelfile, model card and checksums, if the models reach what their domain asks.
rule package:
    input:
        BUILD.inputs("package"),
    output:
        f"{ROOT}/{{domain}}/package/manifest.json",
        f"{ROOT}/{{domain}}/package/Modelfile",
        f"{ROOT}/{{domain}}/package/README.md",
        f"{ROOT}/{{domain}}/package/SHA256SUMS",
    log:
        f"{ROOT}/logs/{{domain}}/package.log",
    priority: BUILD.priority("package")
    threads: BUILD.threads("package")
    resources:
        mem_mb=BUILD.memory_mb("package"),
    params:
        fingerprint=BUILD.fingerprint("package"),
    shell:
        BUILD.shell("package", "{wildcards.domain}")
