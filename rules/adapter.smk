# DOMAIN/adapter: LoRA weights trained on the domain's records.
rule adapter:
    input:
        base=BUILD.base("base"),
        dataset=f"{ROOT}/{{domain}}/dataset/manifest.json",
    output:
        f"{ROOT}/{{domain}}/adapter/manifest.json",
        f"{ROOT}/{{domain}}/adapter/adapter_model.safetensors",
        f"{ROOT}/{{domain}}/adapter/adapter_config.json",
        training=report(
            f"{ROOT}/{{domain}}/adapter/training.json",
            category="Training",
            labels={"domain": "{domain}", "figure": "loss curve"},
        ),
    log:
        f"{ROOT}/logs/{{domain}}/adapter.log",
    threads: BUILD.threads("adapter")
    resources:
        mem_mb=BUILD.memory_mb("adapter"),
        gpu=BUILD.gpus("adapter"),
    params:
        fingerprint=BUILD.fingerprint("adapter"),
    shell:
        "{STAGE} adapter {wildcards.domain} --fingerprint {params.fingerprint} > {log} 2>&1"
