"""`llada-server` with an engine that breaks in its first step."""

import sys
import time

from llada_core.sampling.sampler import Sampler
from server.cli import main


def panics() -> None:
    Sampler.step = lambda self, canvases: sys.exit(7)
    main()


def hangs() -> None:
    Sampler.step = lambda self, canvases: time.sleep(600)
    main()
