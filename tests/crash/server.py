"""Forks a process for each job, so that Python and the store are imported once: started by `rig.Server`.

A job is one line of JSON on stdin: `do` names a function of `jobs`, `signals` are (seconds to wait, number) to send
to it, the first wait beginning when more files match `after` (a folder and a pattern) than did before. The answer, on
stdout, is the exit code, what it told, and how many files matched when the first signal was sent.
"""

import importlib
import json
import os
import sys
import time
import traceback
from pathlib import Path

from tests.crash import jobs


def run(job):
    reading, writing = os.pipe()
    before = matching(job)
    child = os.fork()
    if child == 0:
        try:
            if "output" in job:
                output = os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(output, 1)
                os.dup2(output, 2)
            code = getattr(jobs, job["do"])(job, lambda line: os.write(writing, f"{line}\n".encode()))
        except BaseException:
            traceback.print_exc()
            code = 99
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    os.close(writing)
    while "after" in job and matching(job) <= before and not ended(child):
        time.sleep(0.001)
    seen = None
    for wait, number in job.get("signals", ()):
        time.sleep(wait)
        os.kill(child, number)  # it is still ours, even if it has ended: nobody has waited for it
        seen = matching(job) if seen is None else seen
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with open(reading, encoding="utf-8") as pipe:
        return {"code": code, "told": pipe.read().splitlines(), "seen": seen}


def matching(job):
    folder, pattern = job.get("after", (os.devnull, "*"))
    return sum(1 for _ in Path(folder).glob(pattern))


def ended(child):
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


if __name__ == "__main__":
    for name in sys.argv[1:]:
        importlib.import_module(name)
    jobs.warm_up()
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
