# DOMAIN/dataset: clean records, split into train, validation and test.
rule dataset:
    input:
        BUILD.inputs("dataset"),
    output:
        f"{ROOT}/{{domain}}/dataset/manifest.json",
        f"{ROOT}/{{domain}}/dataset/train.jsonl",
        f"{ROOT}/{{domain}}/dataset/validation.jsonl",
        f"{ROOT}/{{domain}}/dataset/test.jsonl",
        f"{ROOT}/{{domain}}/dataset/card.json",
        f"{ROOT}/{{domain}}/dataset/account.jsonl",
    log:
        f"{ROOT}/logs/{{domain}}/dataset.log",
    priority: BUILD.priority("dataset")
    threads: BUILD.threads("dataset")
    resources:
        mem_mb=BUILD.memory_mb("dataset"),
    params:
        fingerprint=BUILD.fingerprint("dataset"),
    shell:
        BUILD.shell("dataset", "{wildcards.domain}")
