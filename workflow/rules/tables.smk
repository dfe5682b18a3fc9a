# Item tables from vectors that exist already.
# Reads of the config: tables.
rule table:
    input:
        unpack(inputs("table")),
        catalogue="<results>/{dataset}/data/items.parquet",
    output:
        "<results>/{dataset}/tables/{table}.parquet",
    log:
        "<results>/logs/table/{dataset}/{table}.log",
    benchmark:
        "<results>/benchmarks/table/{dataset}/{table}.tsv"
    wildcard_constraints:
        table=one_of(set(CONFIG.tables) - set(MADE_TABLES)),
    retries: CONFIG.resources.prepare.retries or None
    conda:
        ENVIRONMENT
    threads: CONFIG.resources.prepare.threads
    resources:
        **resources("prepare"),
    params:
        cfg=settings("table"),
        code=noun_code("table.py", "table"),
    script:
        "../../scripts/table.py"
