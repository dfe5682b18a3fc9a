# Semantic IDs: item tables as codes, and what is told of the codes.
# Reads of the config: preset, semantic_ids.
rule quantize:
    input:
        unpack(inputs("semantic_ids")),
        interactions="<results>/{dataset}/data/interactions.parquet",
        catalogue="<results>/{dataset}/data/items.parquet",
        users="<results>/{dataset}/data/users.parquet",
    output:
        codes="<results>/{dataset}/semantic_ids/{codes}/codes.parquet",
        model="<results>/{dataset}/semantic_ids/{codes}/model.safetensors",
        description="<results>/{dataset}/semantic_ids/{codes}/model.json",
        history="<results>/{dataset}/semantic_ids/{codes}/history.jsonl",
    log:
        "<results>/logs/quantize/{dataset}/{codes}.log",
    benchmark:
        "<results>/benchmarks/quantize/{dataset}/{codes}.tsv"
    priority: 10
    retries: CONFIG.resources.quantize.retries or None
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.quantize.threads
    resources:
        **resources("quantize"),
    params:
        cfg=settings("semantic_ids"),
        threads=CONFIG.resources.quantize.threads,
        code=noun_code("quantize.py", "semantic_ids"),
    script:
        "../../scripts/quantize.py"


# Reads of the config: semantic_ids.
rule health:
    input:
        unpack(inputs("semantic_ids")),
        codes="<results>/{dataset}/semantic_ids/{codes}/codes.parquet",
        model="<results>/{dataset}/semantic_ids/{codes}/model.safetensors",
        description="<results>/{dataset}/semantic_ids/{codes}/model.json",
        interactions="<results>/{dataset}/data/interactions.parquet",
        catalogue="<results>/{dataset}/data/items.parquet",
        users="<results>/{dataset}/data/users.parquet",
    output:
        "<results>/{dataset}/semantic_ids/{codes}/health.json",
    log:
        "<results>/logs/health/{dataset}/{codes}.log",
    benchmark:
        "<results>/benchmarks/health/{dataset}/{codes}.tsv"
    retries: CONFIG.resources.quantize.retries or None
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.quantize.threads
    resources:
        **resources("quantize", needs_gpu=False),
    params:
        tables=lambda wildcards: PLAN.quantized(wildcards.codes),
        threads=CONFIG.resources.quantize.threads,
        code=noun_code("health.py", "semantic_ids"),
    script:
        "../../scripts/health.py"
