# What `./run` says besides its line of progress, and `tessera plan` of a dry run (src/snakemake_logger_plugin_tessera).
# Plain Snakemake speaks for itself.
from tessera.artifacts.places import RESULTS
from tessera.watch.closing import closing_lines
from tessera.watch.costs import Asked, Costs, begin, plan_lines
from tessera.watch.line import job_name


def cores():
    """Jobs of one thread that may run side by side."""
    return workflow.resource_settings.nodes or workflow.resource_settings.cores or 1


def share(threads):
    """What a job takes of these: its threads, or, where `jobs` bounds how many run at a time, one place."""
    return 1 if workflow.resource_settings.nodes else int(threads or 1)


def asked_for_everything():
    """Whether tables and report were asked for, and not single files, some stages or a part alone."""
    asked = workflow.dag_settings
    return set(asked.targets) <= {"all"} and not (asked.until or asked.omit_from or asked.batch)


def asked_jobs():
    """The jobs that are to run."""
    for job in workflow.dag.needrun_jobs():
        name = job_name(job.rule.name, job.log, dict(job.wildcards_dict))
        yield Asked(job.rule.name, name, str(job.benchmark or ""), share(job.threads))


def planned(jobs):
    """What a dry run says of the jobs that it would run."""
    asked = [
        Asked(job["rule_name"], "", str(job["benchmark"] or ""), share(job["threads"]), tuple(job["output"] or ()))
        for job in jobs
    ]
    return plan_lines(Costs(JOBS, Path(RESULTS)), asked, cores())


def begin_to_watch():
    """Say how long the run will take; the time left is told by it."""
    begin(WATCH.line, Costs(JOBS, Path(RESULTS)), list(asked_jobs()), cores())


WATCH.plan = planned
WATCH.closing = lambda seconds: closing_lines(
    JOBS, [f"{JOBS.root}/logs", ".snakemake/log"], seconds, asked_for_everything()
)
