# Settings chosen on validation: a job a trial, one a round that learns from earlier ones, and one that looks at all.
# Reads of the config: preset, models, semantic_ids, systems, backbones, loss, missing, training, search, evaluation.
rule trial:
    input:
        unpack(lambda w: JOBS.inputs(JOBS.search.searched_run(f"{w.system}/{w.recommender}"), w.dataset)),
        unpack(lambda w: JOBS.search.asked(w.dataset, f"{w.system}/{w.recommender}", int(w.trial))),
        interactions="<results>/{dataset}/data/interactions.parquet",
        catalogue="<results>/{dataset}/data/items.parquet",
    output:
        trial="<results>/{dataset}/trials/{system}/{recommender}/trial-{trial}/trial.json",
        history="<results>/{dataset}/trials/{system}/{recommender}/trial-{trial}/history.jsonl",
    log:
        "<results>/logs/trial/{dataset}/{system}/{recommender}/trial-{trial}.log",
    benchmark:
        "<results>/benchmarks/trial/{dataset}/{system}/{recommender}/trial-{trial}.tsv"
    retries: CONFIG.resources.train.retries or None
    conda:
        ENVIRONMENT
    threads: lambda wildcards: CONFIG.resources.train.threads if trained(wildcards) else 1
    resources:
        **resources("train", trained),
    params:
        cfg=lambda w: JOBS.search.trial(f"{w.system}/{w.recommender}", int(w.trial), w.dataset),
        threads=lambda wildcards: CONFIG.resources.train.threads if trained(wildcards) else 1,
        code=lambda w: code("trial.py", *JOBS.modules(JOBS.search.searched_run(f"{w.system}/{w.recommender}"))),
    script:
        "../../scripts/trial.py"


# Reads of the config: search.
rule ask:
    input:
        trials=lambda w: JOBS.search.rounds_before(w.dataset, f"{w.system}/{w.recommender}", int(w.round)),
    output:
        asked="<results>/{dataset}/trials/{system}/{recommender}/round-{round}.json",
    log:
        "<results>/logs/ask/{dataset}/{system}/{recommender}/round-{round}.log",
    benchmark:
        "<results>/benchmarks/ask/{dataset}/{system}/{recommender}/round-{round}.tsv"
    retries: CONFIG.resources.report.retries or None
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.report.threads
    resources:
        **resources("report"),
    params:
        cfg=lambda w: JOBS.search.asking(f"{w.system}/{w.recommender}"),
        code=code("ask.py"),
    script:
        "../../scripts/ask.py"


# Reads of the config: search.
rule choose:
    input:
        trials=lambda w: JOBS.search.trials(w.dataset, f"{w.system}/{w.recommender}"),
    output:
        best="<results>/{dataset}/trials/{system}/{recommender}/best.json",
        search="<results>/{dataset}/trials/{system}/{recommender}/search.json",
    log:
        "<results>/logs/choose/{dataset}/{system}/{recommender}.log",
    benchmark:
        "<results>/benchmarks/choose/{dataset}/{system}/{recommender}.tsv"
    retries: CONFIG.resources.report.retries or None
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.report.threads
    resources:
        **resources("report"),
    params:
        code=code("choose.py"),
    script:
        "../../scripts/choose.py"
