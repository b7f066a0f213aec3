# report: loss curves and size against quality of all domains, shown by `snakemake --report report.html`.
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
