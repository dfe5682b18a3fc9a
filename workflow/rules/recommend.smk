# Training: one job a run. The trainer's resumable state lies in state/, which is no rule's output.
rule train:
    input:
        unpack(run_inputs),
        unpack(run_teacher),
        interactions="results/{dataset}/data/interactions.parquet",
        catalogue="results/{dataset}/data/items.parquet",
    output:
        model="results/{dataset}/runs/{system}/{recommender}/seed-{seed}/model.safetensors",
        description="results/{dataset}/runs/{system}/{recommender}/seed-{seed}/model.json",
        history="results/{dataset}/runs/{system}/{recommender}/seed-{seed}/history.jsonl",
    log:
        "results/logs/train/{dataset}/{system}/{recommender}/seed-{seed}.log",
    benchmark:
        "results/benchmarks/train/{dataset}/{system}/{recommender}/seed-{seed}.tsv"
    retries: CONFIG.resources.train.retries
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.train.threads
    resources:
        **resources("train"),
    params:
        cfg=lambda wildcards: Told(run_of(wildcards).canonical()),
        threads=lambda wildcards: 1 if run_of(wildcards).heuristic else CONFIG.resources.train.threads,
        code=lambda wildcards: code("train.py", *run_modules(run_of(wildcards))),
    script:
        "../../scripts/train.py"
