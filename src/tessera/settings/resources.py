"""What stages ask of the machine or the cluster."""

from __future__ import annotations

from pydantic import Field

from tessera.settings.base import Settings


class Resources(Settings):
    """What a stage asks of the machine or the cluster. Results depend on `threads` alone, in their last digits."""

    threads: int = Field(1, ge=1)
    """CPU threads. Stages that train, embed, caption, quantise or judge compute in so many, whatever cores there are:
    sums are split among them, so an edit runs the stage again. In the others it changes no number."""
    mem_mb: int = Field(2000, ge=1)
    """Memory in MB; doubled at the first retry and at the second."""
    runtime: int = Field(60, ge=1)
    """Minutes."""
    gpu: int = Field(0, ge=0)
    """GPUs."""
    retries: int = Field(0, ge=0)
    """Further attempts after a failure, a time limit or a preemption; what is wrong with a config or a file is not
    tried again."""

    def memory(self, attempt: int) -> int:
        """Memory in MB of an attempt, from 1: twice as much at the second, and four times at all later ones.

        An attempt may follow on a time limit or a preemption: what no node has would stay pending without a word.
        """
        return int(self.mem_mb * 2 ** min(attempt - 1, 2))


class StageResources(Settings):
    """Resources by stage."""

    ingest: Resources = Field(default_factory=Resources)
    """Reading raw logs, or generating the demo world."""
    prepare: Resources = Field(default_factory=Resources)
    """Cleaning and splitting; item tables that are imported; diagnostics of all of them."""
    pretrain: Resources = Field(default_factory=lambda: Resources(mem_mb=4000, runtime=720, retries=2))
    """Pre-training a model that is built on the spot."""
    caption: Resources = Field(default_factory=lambda: Resources(mem_mb=4000, runtime=720, retries=2))
    """Captions of a catalogue."""
    quantize: Resources = Field(default_factory=lambda: Resources(mem_mb=3000, runtime=240, retries=2))
    """Making semantic IDs, and what is told of them."""
    tune: Resources = Field(default_factory=lambda: Resources(mem_mb=6000, runtime=720, retries=2))
    """Training an embedder: SCFT, LRCL, CRRL."""
    embed: Resources = Field(default_factory=lambda: Resources(mem_mb=4000, runtime=240, retries=1))
    """Embedding a catalogue."""
    train: Resources = Field(default_factory=lambda: Resources(mem_mb=3000, runtime=720, retries=2))
    """Training one run."""
    evaluate: Resources = Field(default_factory=lambda: Resources(mem_mb=3000, retries=1))
    """Judging one run."""
    report: Resources = Field(default_factory=Resources)
    """Metric tables and the page."""
