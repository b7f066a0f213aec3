# DOMAIN/adapter: LoRA weights trained on the domain's records.
rule adapter:
    input:
        BUILD.inputs("adapter"),
    output:
        f"{ROOT}/{{domain}}/adapter/manifest.json",
        f"{ROOT}/{{domain}}/adapter/adapter_model.safetensors",
        f"{ROOT}/{{domain}}/adapter/adapter_config.json",
        f"{ROOT}/{{domain}}/adapter/training.json",
        f"{ROOT}/{{domain}}/adapter/records.jsonl",
    log:
        f"{ROOT}/logs/{{domain}}/adapter.log",
    priority: BUILD.priority("adapter")
    threads: BUILD.threads("adapter")
    resources:
        mem_mb=BUILD.memory_mb("adapter"),
        gpu=BUILD.gpus("adapter"),
    params:
        fingerprint=BUILD.fingerprint("adapter"),
    shell:
        BUILD.shell("adapter", "{wildcards.domain}")
