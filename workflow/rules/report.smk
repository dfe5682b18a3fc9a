# Metric tables, claims, and the page that shows everything, whatever the task. Tables are told which systems know the truth.
# Reads of the config: evaluation, significance, search, experiment; of clicks: ctr, experiment.
rule tables:
    input:
        unpack(lambda wildcards: JOBS.comparison.judgements(wildcards.dataset)),
        unpack(lambda wildcards: JOBS.comparison.shifts(wildcards.dataset)),
    output:
        parquet=JOBS.comparison.table_file("{dataset}", "parquet"),
        csv=report(
            JOBS.comparison.table_file("{dataset}", "csv"),
            caption="../report/tables.rst",
            category="Tables",
            labels={"data": "{dataset}"},
        ),
        md=JOBS.comparison.table_file("{dataset}", "md"),
        tex=JOBS.comparison.table_file("{dataset}", "tex"),
    log:
        "<results>/logs/tables/{dataset}.log",
    benchmark:
        "<results>/benchmarks/tables/{dataset}.tsv"
    retries: CONFIG.resources.report.retries or None
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.report.threads
    resources:
        **resources("report"),
    params:
        cfg=lambda wildcards: JOBS.comparison.table(wildcards.dataset),
        code=code("tables.py", JOBS.comparison.task.table_module),
    script:
        "../../scripts/tables.py"


# Reads of the config: claims, evaluation, significance, experiment; of clicks: claims, ctr, experiment.
rule claims:
    input:
        unpack(lambda wildcards: JOBS.comparison.judgements(wildcards.dataset)),
    output:
        parquet=JOBS.comparison.claims_file("{dataset}", "parquet"),
        csv=JOBS.comparison.claims_file("{dataset}", "csv"),
        md=JOBS.comparison.claims_file("{dataset}", "md"),
    log:
        "<results>/logs/claims/{dataset}.log",
    benchmark:
        "<results>/benchmarks/claims/{dataset}.tsv"
    retries: CONFIG.resources.report.retries or None
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.report.threads
    resources:
        **resources("report"),
    params:
        cfg=lambda wildcards: JOBS.comparison.claims(wildcards.dataset),
        code=code("claims.py", JOBS.comparison.task.claims_module),
    script:
        "../../scripts/claims.py"


# Reads of the config: every section but resources and export.
rule report:
    input:
        unpack(lambda wildcards: JOBS.comparison.shown()),
        rulegraph="<results>/report/rulegraph.mmd",
    output:
        update(report(JOBS.comparison.page, caption="../report/report.rst", category="Report")),
    log:
        "<results>/logs/report.log",
    benchmark:
        "<results>/benchmarks/report.tsv"
    retries: CONFIG.resources.report.retries or None
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.report.threads
    resources:
        **resources("report"),
    params:
        cfg=lambda wildcards: JOBS.comparison.report(config),
        code=code("report.py", JOBS.comparison.task.page_module),
        templates=templates_fingerprint(),
    script:
        "../../scripts/report.py"
