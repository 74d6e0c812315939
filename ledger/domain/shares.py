"""Which share of the goods an item belongs to: the partition that its key is given among so many.

Kafka's clients that hash with murmur2 (Java's own, librdkafka's `murmur2_random`) agree on it, so a cache
that holds a share may stand beside the lane that the share's commands come on.
"""

MULTIPLIER = 0x5BD1E995
SEED = 0x9747B28C
WORD = 0xFFFFFFFF
POSITIVE = 0x7FFFFFFF


def share_of(goods_id: str, shares: int) -> int:
    """The share of the goods, from 0 to `shares` - 1."""
    return (murmur2(goods_id.encode()) & POSITIVE) % shares


def murmur2(data: bytes) -> int:
    """Kafka's 32 bit MurmurHash2, as an unsigned number."""
    size = len(data)
    hashed = SEED ^ size
    for at in range(0, size - 3, 4):
        word = int.from_bytes(data[at : at + 4], "little") * MULTIPLIER & WORD
        word = (word ^ word >> 24) * MULTIPLIER & WORD
        hashed = hashed * MULTIPLIER & WORD ^ word
    if rest := data[size & ~3 :]:
        hashed = (hashed ^ int.from_bytes(rest, "little")) * MULTIPLIER & WORD
    hashed = (hashed ^ hashed >> 13) * MULTIPLIER & WORD
    return hashed ^ hashed >> 15
