"""What the services' test starts ends with it: also what left its parent's session, also when the test is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from deadline import wait_for
from services import KEEPER, processes_that_mention

COMMAND = "cd {folder}; setsid sh -c 'sleep 1001 & touch {folder}/away; exec sleep 1000' & exec sleep 1002"


def test_nothing_outlives_the_starter(tmp_path: Path) -> None:
    starter = "import subprocess, sys, time; subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, start_new_session=True); time.sleep(100)"
    command = [sys.executable, str(KEEPER), "sh", "-c", COMMAND.format(folder=tmp_path)]
    with subprocess.Popen([sys.executable, "-c", starter, *command]) as process:
        wait_for("the keeper's file", (tmp_path / "away").exists, 30)
        assert len(processes_that_mention(tmp_path)) >= 4
        os.kill(process.pid, signal.SIGKILL)
    wait_for("the end of every process", lambda: not processes_that_mention(tmp_path), 30)


def test_the_status_is_the_commands(tmp_path: Path) -> None:
    command = [sys.executable, KEEPER, "sh", "-c", f"cd {tmp_path}; setsid sleep 1000 & exit 7"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as keeper:
        assert keeper.wait(timeout=30) == 7
    assert not processes_that_mention(tmp_path)
