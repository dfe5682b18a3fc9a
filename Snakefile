# Tessera: from raw logs to metric tables. What happens is in workflow/rules; what it is called with, in config/.
import atexit
import os
import sys
import time
from pathlib import Path

from snakemake.utils import min_version

min_version("9.20")

SOURCE = os.path.join(workflow.basedir, "src")
sys.path.insert(0, SOURCE)

from tessera.artifacts.failures import framed, summary
from tessera.project import check_folder
from tessera.settings.base import ConfigError
from tessera.settings.files import check_files_of_config
from tessera.watch.line import WATCH


include: "workflow/rules/start.smk"


BEGAN = time.time()


# At the very end: what a stage said of its failure would otherwise stand above the last lines of Snakemake.
onerror:
    if WATCH.line is None:
        atexit.register(lambda: print(end=summary(Path(JOBS.root, "logs"), BEGAN), file=sys.stderr, flush=True))
    else:
        WATCH.explained = summary(Path(JOBS.root, "logs"), BEGAN)


# The working directory's own config, else the embedded default; a --configfile replaces either.
OWN = Path("config/config.yaml")
EMBEDDED = Path(workflow.basedir, OWN)

try:
    check_folder(Path(workflow.basedir))
    check_files_of_config(workflow.overwrite_configfiles or [OWN if OWN.is_file() else EMBEDDED])
except (ConfigError, OSError) as error:
    refuse(error)

if not workflow.overwrite_configfiles:

    configfile: OWN if OWN.is_file() else EMBEDDED


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/language.smk"
include: "workflow/rules/semantic_ids.smk"
include: "workflow/rules/graph.smk"
include: "workflow/rules/report.smk"


if CONFIG.task == "ctr":

    include: "workflow/rules/ctr.smk"

else:

    include: "workflow/rules/search.smk"
    include: "workflow/rules/recommend.smk"
    include: "workflow/rules/evaluate.smk"
    include: "workflow/rules/serve.smk"


if WATCH.on:

    include: "workflow/rules/watch.smk"


report: "workflow/report/workflow.rst"


onstart:
    write_owner(JOBS.root, workflow.configfiles)
    start_server_early(workflow.dag.needrun_jobs())
    if WATCH.line is not None:
        begin_to_watch()


from tessera.reporting.old_page import bring_back

bring_back(JOBS.comparison.page)


localrules:
    all,
    rulegraph,


rule all:
    default_target: True
    input:
        JOBS.comparison.page,
        [JOBS.comparison.table_file(dataset, "md") for dataset in DATASETS],
        [JOBS.comparison.claims_file(dataset, "md") for dataset in DATASETS if CONFIG.claims],
        [JOBS.comparison.robustness_file(dataset, "md") for dataset in DATASETS if CONFIG.robustness],
        [] if CONFIG.task == "ctr" else [*final(), *recommended(), *exported()],


include: "workflow/rules/reuse.smk"


if workflow.is_main_process:
    take_over()
