# What other experiments have made already: looked for once, before Snakemake asks what is missing.
from snakemake.io import is_flagged

try:
    from snakemake.persistence import MetadataRecord
    from snakemake.persistence.file import FilePersistence
    from snakemake.settings.types import PersistenceBackend
except ImportError:  # a Snakemake that keeps its records elsewhere: nothing is taken over
    FilePersistence = None

from tessera.plan.owner import others
from tessera.plan.reuse import Job, Reuse, taken_over


class Records:
    """Snakemake's records of how outputs were made."""

    def __init__(self):
        self.store = FilePersistence()

    def read(self, output):
        if self.store._filter_incomplete_keys([output]):
            return None
        record = self.store._read_record(output)
        return record.model_dump() if record else None

    def write(self, output, record):
        self.store._write_record(output, MetadataRecord.model_validate(record))
        self.store._unmark_incomplete(output)  # of a job that was killed here before


def producer(path):
    """The rule that makes a file, and its wildcards; None of what no rule makes."""
    makers = (maker for maker in workflow.rules if maker.output and maker.is_producer(path))
    return next(((maker, maker.get_wildcards(path)) for maker in makers), None)


def job_of(maker, wildcards):
    """What decides a job's result, and where it lies."""
    read, output = maker.expand_input(wildcards)[0], maker.expand_output(wildcards)[0]
    return Job(
        maker.name,
        tuple(map(str, read)),
        tuple(map(str, output)),
        lambda: frozenset(map(repr, maker.expand_params(wildcards, read, output, None)[1])),
        tuple(map(str, filter(None, [*maker.expand_log(wildcards), maker.expand_benchmark(wildcards)]))),
        all(is_flagged(file, "temp") for file in maker.output),
    )


def take_over():
    """Take what siblings have of all that this config needs, what is read first; say how much."""
    siblings = others(JOBS.root)
    if not siblings or FilePersistence is None:
        return
    if workflow.workflow_settings.persistence_backend != PersistenceBackend.FILE:
        return
    reuse, met = Reuse(JOBS.root, siblings, Records()), set()

    def visit(path):
        made = producer(path) if path not in met else None
        met.add(path)
        if made is None:
            return
        maker, wildcards = made
        job = job_of(maker, wildcards)
        met.update(job.outputs)
        for read in job.inputs:
            visit(read)
        # what is updated in place would be updated in the other folder, too
        if not any(is_flagged(output, "update") for output in maker.output):
            reuse.take(job)

    for target in workflow.get_rule("all").input:
        visit(str(target))
    if reuse.taken:
        write_owner(JOBS.root, workflow.configfiles)
        print(taken_over(reuse.taken), file=sys.stderr, flush=True)
