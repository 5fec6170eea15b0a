"""Make buckets that are missing: make_buckets.py NAME... Where and as whom, boto3 reads from its AWS_ variables."""

import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError


def main(names: list[str]) -> None:
    """Create each bucket that is not there; one that is ours is left as it is."""
    client = boto3.client("s3", config=Config(retries={"max_attempts": 8, "mode": "standard"}, connect_timeout=5))
    there = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
    for name in sorted(set(names) - there):
        try:
            client.create_bucket(Bucket=name)
        except ClientError as error:
            if error.response["Error"]["Code"] != "BucketAlreadyOwnedByYou":
                raise


if __name__ == "__main__":
    main(sys.argv[1:])
