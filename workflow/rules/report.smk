# Metric tables, and the page that shows everything.
# Reads of the config: evaluation, significance, experiment.
rule tables:
    input:
        runs=lambda wildcards: run_files(wildcards.dataset, "metrics.json"),
        evaluations=lambda wildcards: run_files(wildcards.dataset, "evaluation.parquet"),
        stats="results/{dataset}/data/stats.json",
    output:
        parquet="results/tables/{dataset}.parquet",
        csv=report(
            "results/tables/{dataset}.csv",
            caption="../report/tables.rst",
            category="Tables",
            labels={"data": "{dataset}"},
        ),
        md="results/tables/{dataset}.md",
        tex="results/tables/{dataset}.tex",
    log:
        "results/logs/tables/{dataset}.log",
    benchmark:
        "results/benchmarks/tables/{dataset}.tsv"
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.report.threads
    resources:
        **resources("report"),
    params:
        cfg=lambda wildcards: JOBS.table(wildcards.dataset),
        code=code("tables.py"),
    script:
        "../../scripts/tables.py"


# Reads of the config: every section but resources.
rule report:
    input:
        tables=expand("results/tables/{dataset}.parquet", dataset=DATASETS),
        stats=expand("results/{dataset}/data/stats.json", dataset=DATASETS),
        catalogue=expand("results/{dataset}/data/items.parquet", dataset=DATASETS),
        interactions=expand("results/{dataset}/data/interactions.parquet", dataset=DATASETS),
        users=expand("results/{dataset}/data/users.parquet", dataset=DATASETS),
        metrics=[path for dataset in DATASETS for path in run_files(dataset, "metrics.json")],
        evaluations=[path for dataset in DATASETS for path in run_files(dataset, "evaluation.parquet")],
        histories=[f"results/{dataset}/runs/{run.path}/history.jsonl" for dataset in DATASETS for run in PLAN.runs],
        diagnostics=diagnosed(),
        captions=every("captions"),
        pictures=[JOBS.pictures(dataset) for dataset in DATASETS],
        embedders=every("embedder", "history.jsonl"),
        codes=every("semantic_ids"),
        health=every("semantic_ids", "health.json"),
        rulegraph="results/report/rulegraph.mmd",
    output:
        update(report("results/report/index.html", caption="../report/report.rst", category="Report")),
    log:
        "results/logs/report.log",
    benchmark:
        "results/benchmarks/report.tsv"
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.report.threads
    resources:
        **resources("report"),
    params:
        cfg=lambda wildcards: JOBS.report(config),
        code=code("report.py"),
    script:
        "../../scripts/report.py"
