# Judging: every run ranks the target of every test user, or of a drawn part of them, among the catalogue or among stored
# candidates.
# Reads of the config: evaluation.
rule test_users:
    input:
        interactions="<results>/{dataset}/data/interactions.parquet",
        catalogue="<results>/{dataset}/data/items.parquet",
        users="<results>/{dataset}/data/users.parquet",
    output:
        "<results>/{dataset}/data/test_users.parquet",
    log:
        "<results>/logs/test_users/{dataset}.log",
    benchmark:
        "<results>/benchmarks/test_users/{dataset}.tsv"
    retries: CONFIG.resources.evaluate.retries or None
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.evaluate.threads
    resources:
        **resources("evaluate", needs_gpu=False),
    params:
        cfg=lambda wildcards: JOBS.drawn_users(),
        code=code("test_users.py"),
    script:
        "../../scripts/test_users.py"


# Reads of the config: evaluation.
rule candidates:
    input:
        unpack(published_candidates),
        unpack(drawn_users),
        interactions="<results>/{dataset}/data/interactions.parquet",
        catalogue="<results>/{dataset}/data/items.parquet",
        users="<results>/{dataset}/data/users.parquet",
    output:
        "<results>/{dataset}/data/candidates.parquet",
    log:
        "<results>/logs/candidates/{dataset}.log",
    benchmark:
        "<results>/benchmarks/candidates/{dataset}.tsv"
    retries: CONFIG.resources.evaluate.retries or None
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.evaluate.threads
    resources:
        **resources("evaluate", needs_gpu=False),
    params:
        cfg=lambda wildcards: Told(CANDIDATES.canonical()).beside(published_candidates(wildcards).values()),
        code=code("candidates.py"),
    script:
        "../../scripts/candidates.py"


# Test sets that differ from training: which of the test users are in each. Early, since what it refuses must not wait.
# Reads of the config: evaluation.
rule shift:
    input:
        unpack(drawn_users),
        interactions="<results>/{dataset}/data/interactions.parquet",
        catalogue="<results>/{dataset}/data/items.parquet",
        users="<results>/{dataset}/data/users.parquet",
    output:
        "<results>/{dataset}/data/shifts.parquet",
    log:
        "<results>/logs/shift/{dataset}.log",
    benchmark:
        "<results>/benchmarks/shift/{dataset}.tsv"
    priority: 50
    retries: CONFIG.resources.evaluate.retries or None
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.evaluate.threads
    resources:
        **resources("evaluate", needs_gpu=False),
    params:
        cfg=lambda wildcards: JOBS.shift(),
        code=code("shift.py"),
    script:
        "../../scripts/shift.py"


# Reads of the config: preset, models, tables, semantic_ids, systems, backbones, loss, missing, training, search, evaluation.
rule evaluate:
    input:
        unpack(inputs("run", judged=True)),
        unpack(stored_candidates),
        unpack(drawn_users),
        model="<results>/{dataset}/runs/{system}/{recommender}/seed-{seed}/model.safetensors",
        description="<results>/{dataset}/runs/{system}/{recommender}/seed-{seed}/model.json",
        interactions="<results>/{dataset}/data/interactions.parquet",
        catalogue="<results>/{dataset}/data/items.parquet",
        users="<results>/{dataset}/data/users.parquet",
    output:
        evaluation="<results>/{dataset}/runs/{system}/{recommender}/seed-{seed}/evaluation.parquet",
        metrics="<results>/{dataset}/runs/{system}/{recommender}/seed-{seed}/metrics.json",
    log:
        "<results>/logs/evaluate/{dataset}/{system}/{recommender}/seed-{seed}.log",
    benchmark:
        "<results>/benchmarks/evaluate/{dataset}/{system}/{recommender}/seed-{seed}.tsv"
    priority: 6
    retries: CONFIG.resources.evaluate.retries or None
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.evaluate.threads
    resources:
        **resources("evaluate", trained),
    params:
        cfg=lambda wildcards: JOBS.evaluation(noun("run", wildcards)),
        threads=CONFIG.resources.evaluate.threads,
        code=noun_code("evaluate.py", "run"),
    script:
        "../../scripts/evaluate.py"


# One trained run, judged at many missing rates.
# Reads of the config: preset, models, tables, semantic_ids, systems, backbones, loss, missing, robustness, training, evaluation.
rule corrupt:
    input:
        unpack(inputs("run", judged=True)),
        unpack(stored_candidates),
        unpack(drawn_users),
        model="<results>/{dataset}/runs/{system}/{recommender}/seed-{seed}/model.safetensors",
        description="<results>/{dataset}/runs/{system}/{recommender}/seed-{seed}/model.json",
        interactions="<results>/{dataset}/data/interactions.parquet",
        catalogue="<results>/{dataset}/data/items.parquet",
        users="<results>/{dataset}/data/users.parquet",
    output:
        "<results>/{dataset}/runs/{system}/{recommender}/seed-{seed}/corruption.parquet",
    log:
        "<results>/logs/corrupt/{dataset}/{system}/{recommender}/seed-{seed}.log",
    benchmark:
        "<results>/benchmarks/corrupt/{dataset}/{system}/{recommender}/seed-{seed}.tsv"
    retries: CONFIG.resources.evaluate.retries or None
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.evaluate.threads
    resources:
        **resources("evaluate", trained),
    params:
        cfg=lambda wildcards: JOBS.comparison.corruption(noun("run", wildcards)),
        threads=CONFIG.resources.evaluate.threads,
        code=noun_code("corrupt.py", "run"),
    script:
        "../../scripts/corrupt.py"


# Reads of the config: evaluation.
rule oracle:
    input:
        unpack(stored_candidates),
        unpack(drawn_users),
        interactions="<results>/{dataset}/data/interactions.parquet",
        catalogue="<results>/{dataset}/data/items.parquet",
        users="<results>/{dataset}/data/users.parquet",
        truth="<results>/{dataset}/raw/truth.parquet",
    output:
        evaluation="<results>/{dataset}/runs/oracle/oracle/seed-0/evaluation.parquet",
        metrics="<results>/{dataset}/runs/oracle/oracle/seed-0/metrics.json",
    log:
        "<results>/logs/oracle/{dataset}.log",
    benchmark:
        "<results>/benchmarks/oracle/{dataset}.tsv"
    wildcard_constraints:
        dataset=one_of(GENERATED),
    retries: CONFIG.resources.evaluate.retries or None
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.evaluate.threads
    resources:
        **resources("evaluate", needs_gpu=False),
    params:
        cfg=lambda wildcards: JOBS.evaluation(),
        code=code("oracle.py"),
    script:
        "../../scripts/oracle.py"


# What every system comes to at the missing rates; whoever reads nothing that is lost is as it was judged.
# Reads of the config: robustness, evaluation, significance, experiment.
rule robustness:
    input:
        unpack(lambda wildcards: JOBS.comparison.robustness_inputs(wildcards.dataset)),
    output:
        parquet=JOBS.comparison.robustness_file("{dataset}", "parquet"),
        csv=report(
            JOBS.comparison.robustness_file("{dataset}", "csv"),
            caption="../report/tables.rst",
            category="Tables",
            labels={"data": "{dataset}, missing rates"},
        ),
        md=JOBS.comparison.robustness_file("{dataset}", "md"),
        tex=JOBS.comparison.robustness_file("{dataset}", "tex"),
    log:
        "<results>/logs/robustness/{dataset}.log",
    benchmark:
        "<results>/benchmarks/robustness/{dataset}.tsv"
    retries: CONFIG.resources.report.retries or None
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.report.threads
    resources:
        **resources("report"),
    params:
        cfg=lambda wildcards: JOBS.comparison.robustness(wildcards.dataset),
        code=code("robustness.py"),
    script:
        "../../scripts/robustness.py"
