# Metric tables, and the page that shows everything.
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
        cfg=table_settings,
        code=code("tables.py"),
    script:
        "../../scripts/tables.py"


rule report:
    input:
        tables=expand("results/tables/{dataset}.parquet", dataset=DATASETS),
        stats=expand("results/{dataset}/data/stats.json", dataset=DATASETS),
        catalogue=expand("results/{dataset}/data/items.parquet", dataset=DATASETS),
        interactions=expand("results/{dataset}/data/interactions.parquet", dataset=DATASETS),
        users=expand("results/{dataset}/data/users.parquet", dataset=DATASETS),
        metrics=every("metrics.json"),
        evaluations=every("evaluation.parquet"),
        histories=histories(),
        diagnostics=expand("results/{dataset}/diagnostics/{table}.json", dataset=DATASETS, table=diagnosed_tables()),
        captions=expand("results/{dataset}/captions/{captions}.parquet", dataset=DATASETS, captions=read_captions()),
        embedders=expand("results/{dataset}/embedders/{table}/history.jsonl", dataset=DATASETS, table=tuned_tables()),
        codes=expand("results/{dataset}/semantic_ids/{codes}/codes.parquet", dataset=DATASETS, codes=read_codes()),
        health=expand("results/{dataset}/semantic_ids/{codes}/health.json", dataset=DATASETS, codes=read_codes()),
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
        cfg=lambda wildcards: report_settings(),
        code=code("report.py"),
    script:
        "../../scripts/report.py"
