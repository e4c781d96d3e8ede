"""LanceDB with its table in a bucket, for section_s3cold.py: peer_lancedb_s3.py SET BUCKET

opens the table that lies in the bucket's folder lancedb/, prints a line, then answers each line of
stdin (the number of a query) by seconds and recall as JSON. The server and the keys come by the AWS
environment variables."""

import json
import os
import sys
import time

import vectorsets
import peers

PROBES, REFINE = 24, 10  # recall about 0.95 on this set


def main():
    import lancedb
    data = vectorsets.get(sys.argv[1])
    nearest, queries = data.truth()[:, :peers.K], data.queries()
    base = lancedb.connect(f"s3://{sys.argv[2]}/lancedb", storage_options={
        "aws_access_key_id": os.environ["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": os.environ["AWS_SECRET_ACCESS_KEY"],
        "aws_endpoint": os.environ["AWS_ENDPOINT_URL"], "aws_region": "us-east-1", "allow_http": "true"})
    table = base.open_table(data.name)
    print(json.dumps({"open": True}), flush=True)
    for line in sys.stdin:
        i = int(line)
        begun = time.monotonic()
        found = (table.search(queries[i]).limit(peers.K).nprobes(PROBES).refine_factor(REFINE)
                 .select(["id"]).to_arrow())
        took = time.monotonic() - begun
        hit = len(set(found["id"].to_pylist()) & set(nearest[i].tolist()))
        print(json.dumps({"seconds": took, "recall": hit / peers.K}), flush=True)


main()
