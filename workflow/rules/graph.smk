# The stages of this config as a picture, for the page.
# Reads of the config: every section but resources and export.
rule rulegraph:
    output:
        "<results>/report/rulegraph.mmd",
    log:
        "<results>/logs/rulegraph.log",
    conda:
        ENVIRONMENT
    params:
        graph=lambda wildcards: Told(flow_chart(PLAN)),
    shell:
        "printf '%s\\n' {params.graph:q} > {output} 2> {log}"
