"""On SLURM, Lightning's own environment says which rank this is and where the others are; its requeueing stays off.

That would save a checkpoint inside a signal handler, in the middle of whatever step is being taken, so that no exact
resume is possible; and it would save it in the working folder, from which any other run would then go on. The job
script requeues instead (experiments/slurm.sbatch), and the run goes on from its own last checkpoint.
"""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch.plugins.environments import ClusterEnvironment, SLURMEnvironment


def environment(chosen: Sequence[Any]) -> list[ClusterEnvironment]:
    """The plugin that a task started by srun needs, unless the `chosen` plugins hold an environment already."""
    if any(isinstance(plugin, ClusterEnvironment) for plugin in chosen) or not SLURMEnvironment.detect():
        return []
    return [SLURMEnvironment(auto_requeue=False)]
