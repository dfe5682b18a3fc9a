# Language models: built on the spot, describing items, trained to embed them.
# What most of the rest waits for goes first, so that no core is left idle at its end: hence the priorities. Long jobs
# (training) go before short ones that nothing waits for (diagnostics, maps), which fill the cores at the end.
# Reads of the config: datasets, models.
rule pretrain:
    input:
        unpack(inputs("model")),
        interactions="<results>/{dataset}/data/interactions.parquet",
        catalogue="<results>/{dataset}/data/items.parquet",
        users="<results>/{dataset}/data/users.parquet",
    output:
        directory("<results>/{dataset}/models/{model}"),
    log:
        "<results>/logs/pretrain/{dataset}/{model}.log",
    benchmark:
        "<results>/benchmarks/pretrain/{dataset}/{model}.tsv"
    priority: 30
    retries: CONFIG.resources.pretrain.retries or None
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.pretrain.threads
    resources:
        **resources("pretrain"),
    params:
        cfg=settings("model"),
        threads=CONFIG.resources.pretrain.threads,
        code=code("pretrain.py"),
    script:
        "../../scripts/pretrain.py"


# Part of the captions, where several jobs make them.
# Reads of the config: datasets, models, captions.
rule caption_part:
    input:
        unpack(inputs("captions")),
        catalogue="<results>/{dataset}/data/items.parquet",
    output:
        temp("<results>/{dataset}/captions/{captions}.part-{part}.json"),
    log:
        "<results>/logs/caption_part/{dataset}/{captions}-{part}.log",
    benchmark:
        "<results>/benchmarks/caption_part/{dataset}/{captions}-{part}.tsv"
    wildcard_constraints:
        part=r"\d+",
    priority: 20
    retries: CONFIG.resources.caption.retries or None
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.caption.threads
    resources:
        **resources("caption"),
    params:
        cfg=settings("captions"),
        threads=CONFIG.resources.caption.threads,
        code=code("caption_part.py"),
    script:
        "../../scripts/caption_part.py"


# Reads of the config: datasets, models, captions.
rule caption:
    input:
        unpack(inputs("captions")),
        unpack(lambda wildcards: JOBS.caption_parts(noun("captions", wildcards), wildcards.dataset)),
        catalogue="<results>/{dataset}/data/items.parquet",
    output:
        "<results>/{dataset}/captions/{captions}.parquet",
    log:
        "<results>/logs/caption/{dataset}/{captions}.log",
    benchmark:
        "<results>/benchmarks/caption/{dataset}/{captions}.tsv"
    priority: 20
    retries: CONFIG.resources.caption.retries or None
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.caption.threads
    resources:
        # parts are only put together
        **resources("caption", lambda wildcards: CONFIG.captions[wildcards.captions].jobs == 1),
    params:
        cfg=settings("captions"),
        threads=CONFIG.resources.caption.threads,
        code=code("caption.py"),
    script:
        "../../scripts/caption.py"


# Reads of the config: datasets, preset, models, tables.
rule tune:
    input:
        unpack(inputs("embedder")),
        interactions="<results>/{dataset}/data/interactions.parquet",
        catalogue="<results>/{dataset}/data/items.parquet",
        users="<results>/{dataset}/data/users.parquet",
    output:
        model="<results>/{dataset}/embedders/{table}/model.safetensors",
        description="<results>/{dataset}/embedders/{table}/model.json",
        history="<results>/{dataset}/embedders/{table}/history.jsonl",
    log:
        "<results>/logs/tune/{dataset}/{table}.log",
    benchmark:
        "<results>/benchmarks/tune/{dataset}/{table}.tsv"
    wildcard_constraints:
        table=one_of(name for name in CONFIG.tables if CONFIG.tables[name].TRAINS),
    priority: 20
    retries: CONFIG.resources.tune.retries or None
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.tune.threads
    resources:
        **resources("tune"),
    params:
        cfg=settings("embedder"),
        captions=lambda wildcards: PLAN.captions(wildcards.table),
        threads=CONFIG.resources.tune.threads,
        code=noun_code("tune.py", "embedder"),
    script:
        "../../scripts/tune.py"


# Reads of the config: datasets, preset, models, tables.
rule embed:
    input:
        unpack(inputs("table")),
        catalogue="<results>/{dataset}/data/items.parquet",
    output:
        table="<results>/{dataset}/tables/{table}.parquet",
        finish="<results>/{dataset}/tables/{table}.finish.safetensors",
    log:
        "<results>/logs/embed/{dataset}/{table}.log",
    benchmark:
        "<results>/benchmarks/embed/{dataset}/{table}.tsv"
    wildcard_constraints:
        table=one_of(MADE_TABLES),
    priority: 10
    retries: CONFIG.resources.embed.retries or None
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.embed.threads
    resources:
        **resources("embed"),
    params:
        cfg=settings("table"),
        captions=lambda wildcards: PLAN.captions(wildcards.table),
        threads=CONFIG.resources.embed.threads,
        code=noun_code("embed.py", "table"),
    script:
        "../../scripts/embed.py"


# Reads of the config: nothing.
rule diagnose:
    input:
        unpack(lambda wildcards: JOBS.hidden(wildcards.dataset)),
        table="<results>/{dataset}/tables/{table}.parquet",
        interactions="<results>/{dataset}/data/interactions.parquet",
        catalogue="<results>/{dataset}/data/items.parquet",
        users="<results>/{dataset}/data/users.parquet",
    output:
        "<results>/{dataset}/diagnostics/{table}.json",
    log:
        "<results>/logs/diagnose/{dataset}/{table}.log",
    benchmark:
        "<results>/benchmarks/diagnose/{dataset}/{table}.tsv"
    retries: CONFIG.resources.prepare.retries or None
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.prepare.threads
    resources:
        **resources("prepare"),
    params:
        code=code("diagnose.py"),
    script:
        "../../scripts/diagnose.py"


# Reads of the config: semantic_ids, report.
rule atlas:
    input:
        unpack(lambda wildcards: JOBS.comparison.codes_of(wildcards.table, wildcards.dataset)),
        table="<results>/{dataset}/tables/{table}.parquet",
        interactions="<results>/{dataset}/data/interactions.parquet",
        catalogue="<results>/{dataset}/data/items.parquet",
        users="<results>/{dataset}/data/users.parquet",
    output:
        "<results>/{dataset}/atlas/{table}.parquet",
    log:
        "<results>/logs/atlas/{dataset}/{table}.log",
    benchmark:
        "<results>/benchmarks/atlas/{dataset}/{table}.tsv"
    retries: CONFIG.resources.prepare.retries or None
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.prepare.threads
    resources:
        **resources("prepare"),
    params:
        method=CONFIG.report.map,
        code=code("atlas.py"),
    script:
        "../../scripts/atlas.py"
