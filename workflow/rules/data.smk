# Raw logs, or the demo world, to datasets.
# Reads of the config: datasets.
rule ingest:
    input:
        files=lambda wildcards: dataset_files(CONFIG, wildcards.dataset),
    output:
        interactions="<results>/{dataset}/raw/interactions.parquet",
        catalogue="<results>/{dataset}/raw/items.parquet",
        rejected="<results>/{dataset}/raw/rejected.parquet",
        summary="<results>/{dataset}/raw/ingest.json",
        pictures="<results>/{dataset}/raw/pictures.json",
    log:
        "<results>/logs/ingest/{dataset}.log",
    benchmark:
        "<results>/benchmarks/ingest/{dataset}.tsv"
    wildcard_constraints:
        dataset=one_of(set(DATASETS) - set(GENERATED)),
    retries: CONFIG.resources.ingest.retries or None
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.ingest.threads
    resources:
        **resources("ingest"),
    params:
        cfg=lambda wildcards: JOBS.ingest(wildcards.dataset).beside(dataset_files(CONFIG, wildcards.dataset)),
        pictures=lambda wildcards: picture_names(CONFIG, wildcards.dataset),
        code=lambda wildcards: code("ingest.py", *JOBS.source_modules(wildcards.dataset)),
    script:
        "../../scripts/ingest.py"


# Reads of the config: datasets.
rule generate:
    output:
        interactions="<results>/{dataset}/raw/interactions.parquet",
        catalogue="<results>/{dataset}/raw/items.parquet",
        rejected="<results>/{dataset}/raw/rejected.parquet",
        summary="<results>/{dataset}/raw/ingest.json",
        pictures="<results>/{dataset}/raw/pictures.json",
        images=directory("<results>/{dataset}/raw/images"),
        latents="<results>/{dataset}/raw/latents.parquet",
        truth="<results>/{dataset}/raw/truth.parquet",
    log:
        "<results>/logs/generate/{dataset}.log",
    benchmark:
        "<results>/benchmarks/generate/{dataset}.tsv"
    wildcard_constraints:
        dataset=one_of(GENERATED),
    retries: CONFIG.resources.ingest.retries or None
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.ingest.threads
    resources:
        **resources("ingest"),
    params:
        cfg=lambda wildcards: JOBS.ingest(wildcards.dataset),
        code=code("generate.py"),
    script:
        "../../scripts/generate.py"


# Reads of the config: datasets.
rule prepare:
    input:
        interactions=raw("interactions.parquet"),
        catalogue=raw("items.parquet"),
        rejected=raw("rejected.parquet"),
        summary=raw("ingest.json"),
    output:
        interactions="<results>/{dataset}/data/interactions.parquet",
        catalogue="<results>/{dataset}/data/items.parquet",
        users="<results>/{dataset}/data/users.parquet",
        stats="<results>/{dataset}/data/stats.json",
    log:
        "<results>/logs/prepare/{dataset}.log",
    benchmark:
        "<results>/benchmarks/prepare/{dataset}.tsv"
    retries: CONFIG.resources.prepare.retries or None
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.prepare.threads
    resources:
        **resources("prepare"),
    params:
        cfg=lambda wildcards: JOBS.prepare(wildcards.dataset),
        judged=CONFIG.task == "sequential",
        code=code("prepare.py"),
    script:
        "../../scripts/prepare.py"
