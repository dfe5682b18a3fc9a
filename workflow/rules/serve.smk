# Use: lists for all users with a finished run.
# Reads of the config: preset, models, semantic_ids, systems, backbones, loss, missing, training, evaluation, recommend.
rule recommend:
    input:
        unpack(inputs("run", judged=True)),
        unpack(lambda wildcards: JOBS.serving.readers(noun("run", wildcards), wildcards.dataset)),
        **JOBS.serving.recommend_files(),
        model="<results>/{dataset}/runs/{system}/{recommender}/seed-{seed}/model.safetensors",
        description="<results>/{dataset}/runs/{system}/{recommender}/seed-{seed}/model.json",
        interactions="<results>/{dataset}/data/interactions.parquet",
        catalogue="<results>/{dataset}/data/items.parquet",
        users="<results>/{dataset}/data/users.parquet",
    output:
        table="<results>/{dataset}/recommendations/{system}/{recommender}/seed-{seed}.parquet",
        csv="<results>/{dataset}/recommendations/{system}/{recommender}/seed-{seed}.csv",
    log:
        "<results>/logs/recommend/{dataset}/{system}/{recommender}/seed-{seed}.log",
    benchmark:
        "<results>/benchmarks/recommend/{dataset}/{system}/{recommender}/seed-{seed}.tsv"
    retries: CONFIG.resources.evaluate.retries or None
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.evaluate.threads
    resources:
        **resources("evaluate", trained),
    params:
        threads=CONFIG.resources.evaluate.threads,
        cfg=lambda wildcards: JOBS.serving.recommend(noun("run", wildcards)),
        code=lambda wildcards: code("recommend.py", *JOBS.serving.recommend_modules(noun("run", wildcards))),
    script:
        "../../scripts/recommend.py"


# A finished run in a folder to hand on; what `export.push` names is sent, and nothing else.
# Reads of the config: preset, models, semantic_ids, systems, backbones, loss, missing, training, evaluation, export.
rule export:
    input:
        unpack(lambda wildcards: JOBS.serving.exported_files(exported_run(wildcards), wildcards.dataset)),
    output:
        folder=directory("<results>/{dataset}/export/{system}/{recommender}"),
    log:
        "<results>/logs/export/{dataset}/{system}/{recommender}.log",
    benchmark:
        "<results>/benchmarks/export/{dataset}/{system}/{recommender}.tsv"
    retries: CONFIG.resources.evaluate.retries or None
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.evaluate.threads
    resources:
        **resources("evaluate", trained),
    params:
        threads=CONFIG.resources.evaluate.threads,
        cfg=lambda wildcards: JOBS.serving.export(exported_run(wildcards)),
        code=lambda wildcards: code("export.py", *JOBS.modules(exported_run(wildcards))),
    script:
        "../../scripts/export.py"
