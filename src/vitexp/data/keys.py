"""The keys of samples: what the index holds as hashes, read again from the names in the shards."""

import tarfile

import numpy as np

from vitexp.data.index import ShardIndex
from vitexp.data.mirror import fetch_shard
from vitexp.data.scan import key_hash, split_name
from vitexp.data.tar import BLOCK, BadShard


def keys_of(index: ShardIndex, samples: np.ndarray) -> list[str]:
    """The key of each sample: only headers are read, and of a shard at a URL the copy that is kept here.

    Raises: BadShard when a shard is not what was indexed.
    """
    shards = index.shard_of(samples)
    found: dict[int, str] = {}
    for shard in np.unique(shards).tolist():
        names = _names(index, shard)
        for sample in samples[shards == shard].tolist():
            row = index.table[sample]
            key = split_name(names.get(int(row["block"]), ""))[0]
            if key_hash(key) != int(row["key"]):
                raise BadShard(
                    f"{index.directory / index.shards[shard].name} has changed since it was indexed: sample {sample} "
                    f"is called {key!r} now; make the index again with `vitexp shards index {index.directory}`"
                )
            found[sample] = key
    return [found[sample] for sample in samples.tolist()]


def _names(index: ShardIndex, shard: int) -> dict[int, str]:
    """The names of a shard's members, by the block that their data begin in."""
    path = index.directory / index.shards[shard].name
    if index.shard_set.url:
        path = fetch_shard(index.shard_set, index.shards[shard])
    try:
        with tarfile.open(path, "r:", encoding="utf-8", errors="replace") as tar:
            return {member.offset_data // BLOCK: member.name for member in tar}
    except (tarfile.TarError, OSError) as error:
        raise BadShard(f"{path} cannot be read ({error}); make it again, or its index") from error
