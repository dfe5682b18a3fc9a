# Judging: every run ranks every test target, among the catalogue or among stored candidates.
rule candidates:
    input:
        unpack(published_candidates),
        interactions="results/{dataset}/data/interactions.parquet",
        catalogue="results/{dataset}/data/items.parquet",
        users="results/{dataset}/data/users.parquet",
    output:
        "results/{dataset}/data/candidates.parquet",
    log:
        "results/logs/candidates/{dataset}.log",
    benchmark:
        "results/benchmarks/candidates/{dataset}.tsv"
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.evaluate.threads
    resources:
        **resources("evaluate"),
    params:
        cfg=lambda wildcards: Told(CANDIDATES.canonical()),
        code=code("candidates.py"),
    script:
        "../../scripts/candidates.py"


rule evaluate:
    input:
        unpack(run_inputs),
        unpack(stored_candidates),
        model="results/{dataset}/runs/{system}/{recommender}/seed-{seed}/model.safetensors",
        description="results/{dataset}/runs/{system}/{recommender}/seed-{seed}/model.json",
        interactions="results/{dataset}/data/interactions.parquet",
        catalogue="results/{dataset}/data/items.parquet",
        users="results/{dataset}/data/users.parquet",
    output:
        evaluation="results/{dataset}/runs/{system}/{recommender}/seed-{seed}/evaluation.parquet",
        metrics="results/{dataset}/runs/{system}/{recommender}/seed-{seed}/metrics.json",
    log:
        "results/logs/evaluate/{dataset}/{system}/{recommender}/seed-{seed}.log",
    benchmark:
        "results/benchmarks/evaluate/{dataset}/{system}/{recommender}/seed-{seed}.tsv"
    retries: CONFIG.resources.evaluate.retries
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.evaluate.threads
    resources:
        **resources("evaluate"),
    params:
        cfg=lambda wildcards: evaluation_settings(run_of(wildcards)),
        threads=CONFIG.resources.evaluate.threads,
        code=lambda wildcards: code("evaluate.py", *run_modules(run_of(wildcards))),
    script:
        "../../scripts/evaluate.py"


rule oracle:
    input:
        unpack(stored_candidates),
        interactions="results/{dataset}/data/interactions.parquet",
        catalogue="results/{dataset}/data/items.parquet",
        users="results/{dataset}/data/users.parquet",
        truth="results/{dataset}/raw/truth.parquet",
    output:
        evaluation="results/{dataset}/runs/oracle/oracle/seed-0/evaluation.parquet",
        metrics="results/{dataset}/runs/oracle/oracle/seed-0/metrics.json",
    log:
        "results/logs/oracle/{dataset}.log",
    benchmark:
        "results/benchmarks/oracle/{dataset}.tsv"
    wildcard_constraints:
        dataset=one_of(GENERATED),
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.evaluate.threads
    resources:
        **resources("evaluate"),
    params:
        cfg=lambda wildcards: evaluation_settings(),
        code=code("oracle.py"),
    script:
        "../../scripts/oracle.py"
