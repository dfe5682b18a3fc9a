# Training: one job a run. The trainer's resumable state lies in state/, which is no rule's output.
# Reads of the config: preset, models, semantic_ids, systems, backbones, loss, missing, training, search, evaluation.
rule train:
    input:
        unpack(inputs("run")),
        unpack(lambda wildcards: JOBS.validated(noun("run", wildcards), wildcards.dataset)),
        unpack(lambda wildcards: JOBS.search.chosen(noun("run", wildcards), wildcards.dataset)),
        interactions="<results>/{dataset}/data/interactions.parquet",
        catalogue="<results>/{dataset}/data/items.parquet",
    output:
        model="<results>/{dataset}/runs/{system}/{recommender}/seed-{seed}/model.safetensors",
        description="<results>/{dataset}/runs/{system}/{recommender}/seed-{seed}/model.json",
        history="<results>/{dataset}/runs/{system}/{recommender}/seed-{seed}/history.jsonl",
    log:
        "<results>/logs/train/{dataset}/{system}/{recommender}/seed-{seed}.log",
    benchmark:
        "<results>/benchmarks/train/{dataset}/{system}/{recommender}/seed-{seed}.tsv"
    priority: 5
    retries: CONFIG.resources.train.retries or None
    conda:
        ENVIRONMENT
    threads: lambda wildcards: CONFIG.resources.train.threads if trained(wildcards) else 1
    resources:
        **resources("train", trained),
    params:
        cfg=settings("run"),
        threads=lambda wildcards: CONFIG.resources.train.threads if trained(wildcards) else 1,
        code=noun_code("train.py", "run"),
    script:
        "../../scripts/train.py"
