"""Make accounts of MLflow: make_users.py NAME=FILE... The password is in the file; one that exists gets it as its own.

MLFLOW_TRACKING_URI, and MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD of an administrator, say where and as whom.
"""

import os
import sys
from pathlib import Path

from mlflow import MlflowException
from mlflow.server.auth.client import AuthServiceClient


def main(pairs: list[str]) -> None:
    """Create each account, or set the password of one that is there."""
    client = AuthServiceClient(os.environ["MLFLOW_TRACKING_URI"])
    for pair in pairs:
        name, file = pair.split("=", 1)
        password = Path(file).read_text(encoding="utf-8").strip()
        try:
            client.get_user(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            client.create_user(name, password)
        else:
            client.update_user_password(name, password)


if __name__ == "__main__":
    main(sys.argv[1:])
