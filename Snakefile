# Tessera: from raw logs to metric tables. What happens is in workflow/rules; what it is called with, in config/.
from pathlib import Path

from snakemake.utils import min_version

min_version("9.20")

# The working directory's own config, else the embedded default; a --configfile replaces either.
OWN = Path("config/config.yaml")
EMBEDDED = Path(workflow.basedir, OWN)

if not workflow.overwrite_configfiles:

    configfile: OWN if OWN.is_file() else EMBEDDED


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/language.smk"
include: "workflow/rules/semantic_ids.smk"
include: "workflow/rules/graph.smk"


if CONFIG.task == "ctr":

    include: "workflow/rules/ctr.smk"

else:

    include: "workflow/rules/recommend.smk"
    include: "workflow/rules/evaluate.smk"
    include: "workflow/rules/report.smk"


report: "workflow/report/workflow.rst"


from tessera.reporting.old_page import bring_back

bring_back("results/report/index.html")


localrules:
    all,
    rulegraph,


TABLES = [f"{name}-ctr" if CONFIG.task == "ctr" else name for name in DATASETS]


rule all:
    default_target: True
    input:
        "results/report/index.html",
        expand("results/tables/{dataset}.md", dataset=TABLES),
