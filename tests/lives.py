"""Runs in processes of their own that can be killed, forked from this one: a life costs its work, not its imports."""

import os
import sys

from speechft.train.finetune import finetune


def life(words, out, said):
    child = os.fork()
    if child == 0:
        code = 99
        try:
            sys.stderr = said.open("a", buffering=1)
            finetune(words, out)
            code = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
        finally:
            os._exit(code)
    os.setpgid(child, child)  # with its loader's workers it can be killed as one
    return child


def ended(child):
    process, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if process else None
