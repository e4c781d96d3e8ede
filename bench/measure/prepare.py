"""What `bench/run prepare` makes once: the sets, and what other libraries build of them.

All of it stays in the cache folder (vectorsets.py), so that a run of the sections spends its time on
measuring. On a quiet machine it takes about half an hour; what is there already is kept."""

import time

import vectorsets
import ours
import peers
import redis8
import section_ann
import section_build
import section_large
import section_resp


def wanted():
    """(set, peer), the ones that most lines need first."""
    names = [(s, n) for s, some in section_ann.DEFAULT.items() for n in some]
    names += [(case[0], case[2]) for case in section_build.CASES]
    names.append(("syn-10m", section_large.PEER))
    return list(dict.fromkeys(names))


def prepare():
    for name in vectorsets.SETS:
        ours.npy(vectorsets.get(name))
    for set_name, name in wanted():
        begun = time.monotonic()
        peers.measure(set_name, name)
        vectorsets.say(f"{set_name}: {name}, {time.monotonic() - begun:.0f} s")
    if redis8.words():
        redis8.filled(section_resp.SET)
        vectorsets.say("Redis is filled")
    section_resp.lancedb_cached()
