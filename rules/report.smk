# report: loss curves, size against quality, and a map of all domains, shown by `snakemake --report report.html`.
rule report:
    input:
        BUILD.inputs("report"),
    output:
        f"{ROOT}/report/manifest.json",
        report(
            f"{ROOT}/report/loss_curves.svg",
            category="Training",
            labels={"figure": "loss curves"},
        ),
        report(
            f"{ROOT}/report/size_quality.svg",
            category="Evaluation",
            labels={"figure": "size against quality"},
        ),
        report(
            f"{ROOT}/report/relations.svg",
            category="Domains",
            labels={"figure": "which are alike"},
        ),
    log:
        f"{ROOT}/logs/report.log",
    priority: BUILD.priority("report")
    threads: BUILD.threads("report")
    resources:
        mem_mb=BUILD.memory_mb("report"),
    params:
        fingerprint=BUILD.fingerprint("report"),
    shell:
        BUILD.shell("report", "report")
