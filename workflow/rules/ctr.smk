# Click-through rate over lifelong histories: impressions, models and their judge.
wildcard_constraints:
    name=one_of(CONFIG.ctr.models),


# Reads of the config: ctr.
rule samples:
    input:
        interactions="<results>/{dataset}/data/interactions.parquet",
        catalogue="<results>/{dataset}/data/items.parquet",
        users="<results>/{dataset}/data/users.parquet",
    output:
        samples="<results>/{dataset}/ctr/samples/samples.parquet",
        catalogue="<results>/{dataset}/ctr/samples/catalogue.parquet",
        offsets="<results>/{dataset}/ctr/samples/offsets.npy",
        events="<results>/{dataset}/ctr/samples/items.npy",
        times="<results>/{dataset}/ctr/samples/times.npy",
        summary="<results>/{dataset}/ctr/samples/samples.json",
    log:
        "<results>/logs/samples/{dataset}.log",
    benchmark:
        "<results>/benchmarks/samples/{dataset}.tsv"
    retries: CONFIG.resources.prepare.retries or None
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.prepare.threads
    resources:
        **resources("prepare"),
    params:
        cfg=lambda wildcards: Told(CONFIG.ctr.samples.canonical()),
        code=code("samples.py"),
    script:
        "../../scripts/samples.py"


# Reads of the config: ctr.
rule content:
    input:
        unpack(lambda wildcards: JOBS.clicks.content_pictures(wildcards.dataset)),
        catalogue="<results>/{dataset}/data/items.parquet",
    output:
        index="<results>/{dataset}/ctr/content/content.json",
        tokenizer="<results>/{dataset}/ctr/content/tokenizer.json",
        arrays=expand(
            "<results>/{{dataset}}/ctr/content/{name}.npy",
            name=["tokens", "fields", "offsets", "first", "patches", "pictured"],
        ),
    log:
        "<results>/logs/content/{dataset}.log",
    benchmark:
        "<results>/benchmarks/content/{dataset}.tsv"
    retries: CONFIG.resources.prepare.retries or None
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.prepare.threads
    resources:
        **resources("prepare"),
    params:
        cfg=lambda wildcards: Told(CONFIG.ctr.content.canonical()),
        code=code("content.py"),
    script:
        "../../scripts/content.py"


# Reads of the config: ctr.
rule train_ctr:
    input:
        unpack(inputs("click_run")),
        samples="<results>/{dataset}/ctr/samples/samples.parquet",
        catalogue="<results>/{dataset}/ctr/samples/catalogue.parquet",
        offsets="<results>/{dataset}/ctr/samples/offsets.npy",
        events="<results>/{dataset}/ctr/samples/items.npy",
        times="<results>/{dataset}/ctr/samples/times.npy",
    output:
        model="<results>/{dataset}/ctr/runs/{name}/seed-{seed}/model.safetensors",
        description="<results>/{dataset}/ctr/runs/{name}/seed-{seed}/model.json",
        history="<results>/{dataset}/ctr/runs/{name}/seed-{seed}/history.jsonl",
    log:
        "<results>/logs/train_ctr/{dataset}/{name}/seed-{seed}.log",
    benchmark:
        "<results>/benchmarks/train_ctr/{dataset}/{name}/seed-{seed}.tsv"
    retries: CONFIG.resources.train.retries or None
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.train.threads
    resources:
        **resources("train"),
    params:
        cfg=settings("click_run"),
        threads=CONFIG.resources.train.threads,
        code=noun_code("train_ctr.py", "click_run"),
    script:
        "../../scripts/train_ctr.py"


# Reads of the config: ctr.
rule evaluate_ctr:
    input:
        unpack(lambda wildcards: JOBS.clicks.judged_click_run(noun("click_run", wildcards), wildcards.dataset)),
        model="<results>/{dataset}/ctr/runs/{name}/seed-{seed}/model.safetensors",
        description="<results>/{dataset}/ctr/runs/{name}/seed-{seed}/model.json",
        samples="<results>/{dataset}/ctr/samples/samples.parquet",
        catalogue="<results>/{dataset}/ctr/samples/catalogue.parquet",
        offsets="<results>/{dataset}/ctr/samples/offsets.npy",
        events="<results>/{dataset}/ctr/samples/items.npy",
        times="<results>/{dataset}/ctr/samples/times.npy",
    output:
        predictions="<results>/{dataset}/ctr/runs/{name}/seed-{seed}/predictions.parquet",
        metrics="<results>/{dataset}/ctr/runs/{name}/seed-{seed}/metrics.json",
    log:
        "<results>/logs/evaluate_ctr/{dataset}/{name}/seed-{seed}.log",
    benchmark:
        "<results>/benchmarks/evaluate_ctr/{dataset}/{name}/seed-{seed}.tsv"
    retries: CONFIG.resources.evaluate.retries or None
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.evaluate.threads
    resources:
        **resources("evaluate"),
    params:
        cfg=lambda wildcards: JOBS.clicks.click_evaluation(noun("click_run", wildcards)),
        threads=CONFIG.resources.evaluate.threads,
        code=lambda wildcards: code("evaluate_ctr.py", *JOBS.clicks.judging_modules(noun("click_run", wildcards))),
    script:
        "../../scripts/evaluate_ctr.py"


# Reads of the config: ctr.
rule oracle_ctr:
    input:
        truth="<results>/{dataset}/raw/truth.parquet",
        interactions="<results>/{dataset}/data/interactions.parquet",
        dataset_items="<results>/{dataset}/data/items.parquet",
        users="<results>/{dataset}/data/users.parquet",
        samples="<results>/{dataset}/ctr/samples/samples.parquet",
        catalogue="<results>/{dataset}/ctr/samples/catalogue.parquet",
        offsets="<results>/{dataset}/ctr/samples/offsets.npy",
        events="<results>/{dataset}/ctr/samples/items.npy",
        times="<results>/{dataset}/ctr/samples/times.npy",
    output:
        predictions="<results>/{dataset}/ctr/runs/oracle/seed-0/predictions.parquet",
        metrics="<results>/{dataset}/ctr/runs/oracle/seed-0/metrics.json",
    log:
        "<results>/logs/oracle_ctr/{dataset}.log",
    benchmark:
        "<results>/benchmarks/oracle_ctr/{dataset}.tsv"
    wildcard_constraints:
        dataset=one_of(filter(PLAN.lifelong, DATASETS)),
    retries: CONFIG.resources.evaluate.retries or None
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.evaluate.threads
    resources:
        **resources("evaluate", needs_gpu=False),
    params:
        cfg=lambda wildcards: JOBS.clicks.click_oracle(),
        code=code("oracle_ctr.py"),
    script:
        "../../scripts/oracle_ctr.py"
