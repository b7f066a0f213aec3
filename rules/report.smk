# report: loss curves, size against quality, and a map of all domains, shown by `snakemake --report report.html`.
rule report:
    input:
        BUILD.inputs("report"),
    output:
        BUILD.output("report", "manifest.json"),
        report(
            BUILD.output("report", "loss_curves.svg"),
            category="Training",
            labels={"figure": "loss curves"},
        ),
        report(
            BUILD.output("report", "size_quality.svg"),
            category="Evaluation",
            labels={"figure": "size against quality"},
        ),
        report(
            BUILD.output("report", "relations.svg"),
            category="Domains",
            labels={"figure": "which are alike"},
        ),
    log:
        BUILD.log("report"),
    priority: BUILD.priority("report")
    threads: BUILD.threads("report")
    resources:
        mem_mb=BUILD.memory_mb("report"),
    params:
        fingerprint=BUILD.fingerprint("report"),
    shell:
        BUILD.shell("report")
