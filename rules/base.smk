# base/NAME: the model that adapters are trained on, and its own F16 file, made or fetched once and shared.
rule corpus:
    input:
        BUILD.inputs("corpus"),
    output:
        f"{ROOT}/base/{{base}}/corpus/manifest.json",
        f"{ROOT}/base/{{base}}/corpus/corpus.jsonl",
    log:
        f"{ROOT}/logs/base/{{base}}/corpus.log",
    priority: BUILD.priority("corpus")
    threads: BUILD.threads("corpus")
    resources:
        mem_mb=BUILD.memory_mb("corpus"),
    params:
        fingerprint=BUILD.fingerprint("corpus"),
    shell:
        BUILD.shell("corpus", "base/{wildcards.base}")


rule base_made_here:
    input:
        BUILD.inputs("base"),
    output:
        f"{ROOT}/base/{{base}}/manifest.json",
        f"{ROOT}/base/{{base}}/model.safetensors",
    log:
        f"{ROOT}/logs/base/{{base}}/base.log",
    wildcard_constraints:
        base=BUILD.made_here,
    priority: BUILD.priority("base")
    threads: BUILD.threads("base")
    resources:
        mem_mb=BUILD.memory_mb("base"),
        gpu=BUILD.gpus("base"),
    params:
        fingerprint=BUILD.fingerprint("base"),
    shell:
        BUILD.shell("base", "base/{wildcards.base}")


rule base_pretrained:
    input:
        BUILD.inputs("base"),
    output:
        f"{ROOT}/base/{{base}}/manifest.json",
    log:
        f"{ROOT}/logs/base/{{base}}/base.log",
    wildcard_constraints:
        base=BUILD.pretrained,
    priority: BUILD.priority("base")
    threads: BUILD.threads("base")
    resources:
        mem_mb=BUILD.memory_mb("base"),
    params:
        fingerprint=BUILD.fingerprint("base"),
    shell:
        BUILD.shell("base", "base/{wildcards.base}")


rule base_gguf:
    input:
        BUILD.inputs("gguf"),
    output:
        f"{ROOT}/base/{{base}}/gguf/manifest.json",
        f"{ROOT}/base/{{base}}/gguf/{{base}}-F16.gguf",
    log:
        f"{ROOT}/logs/base/{{base}}/gguf.log",
    priority: BUILD.priority("gguf")
    threads: BUILD.threads("gguf")
    resources:
        mem_mb=BUILD.memory_mb("gguf"),
    params:
        fingerprint=BUILD.fingerprint("gguf"),
    shell:
        BUILD.shell("gguf", "base/{wildcards.base}")
