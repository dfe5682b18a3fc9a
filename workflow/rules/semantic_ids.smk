# Semantic IDs: item tables as codes, and what is told of the codes.
rule quantize:
    input:
        unpack(quantizer_inputs),
        interactions="results/{dataset}/data/interactions.parquet",
        catalogue="results/{dataset}/data/items.parquet",
        users="results/{dataset}/data/users.parquet",
    output:
        codes="results/{dataset}/semantic_ids/{codes}/codes.parquet",
        model="results/{dataset}/semantic_ids/{codes}/model.safetensors",
        description="results/{dataset}/semantic_ids/{codes}/model.json",
        history="results/{dataset}/semantic_ids/{codes}/history.jsonl",
    log:
        "results/logs/quantize/{dataset}/{codes}.log",
    benchmark:
        "results/benchmarks/quantize/{dataset}/{codes}.tsv"
    retries: CONFIG.resources.quantize.retries
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.quantize.threads
    resources:
        **resources("quantize"),
    params:
        cfg=quantizer_settings,
        threads=CONFIG.resources.quantize.threads,
        code=lambda wildcards: code("quantize.py", *quantizer_modules(wildcards.codes)),
    script:
        "../../scripts/quantize.py"


rule health:
    input:
        unpack(quantizer_inputs),
        codes="results/{dataset}/semantic_ids/{codes}/codes.parquet",
        model="results/{dataset}/semantic_ids/{codes}/model.safetensors",
        description="results/{dataset}/semantic_ids/{codes}/model.json",
        interactions="results/{dataset}/data/interactions.parquet",
        catalogue="results/{dataset}/data/items.parquet",
        users="results/{dataset}/data/users.parquet",
    output:
        "results/{dataset}/semantic_ids/{codes}/health.json",
    log:
        "results/logs/health/{dataset}/{codes}.log",
    benchmark:
        "results/benchmarks/health/{dataset}/{codes}.tsv"
    retries: CONFIG.resources.quantize.retries
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.quantize.threads
    resources:
        **resources("quantize"),
    params:
        tables=lambda wildcards: CONFIG.quantized(wildcards.codes),
        threads=CONFIG.resources.quantize.threads,
        code=lambda wildcards: code("health.py", *quantizer_modules(wildcards.codes)),
    script:
        "../../scripts/health.py"
