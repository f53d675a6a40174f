"""A platform held by a terminal or a service manager: started, watched, and stopped by a signal.

Only a signal stops what runs. A start that fails takes down what it brought up
itself and nothing else: applications that ran before do not depend on it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

from minuet.kernel.errors import MinuetError
from minuet.server import embedded, first_app, greeting, survivors
from minuet.server.embedded import Supervisor, Talk
from minuet.server.installation import Installation

INTERRUPTED = 130


async def serve(data: Path, chosen: Installation, *, sample: bool, talk: Talk) -> None:
    """Returns after a signal when everything has stopped; raises what kept the platform from starting."""
    supervisor = embedded.Supervisor(data, chosen, talk)
    asked = _listen(data, talk)
    work = asyncio.create_task(_work(supervisor, data, chosen, sample=sample, talk=talk))
    stopping = asyncio.create_task(asked.wait())
    await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if asked.is_set():
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        talk("Stopping ...")
        await supervisor.stop()
        talk("Stopped.")
        return
    stopping.cancel()
    await _give_up(supervisor, data, talk)
    await work


def _listen(data: Path, talk: Talk) -> asyncio.Event:
    """The first signal asks to stop; the second, from somebody who no longer wants to wait, ends everything hard."""
    asked = asyncio.Event()

    def on_signal() -> None:
        if asked.is_set():
            talk("Killed; what was in flight is lost.")
            survivors.kill(data)
            os._exit(INTERRUPTED)
        asked.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    return asked


async def _work(supervisor: Supervisor, data: Path, chosen: Installation, *, sample: bool, talk: Talk) -> None:
    began = time.monotonic()
    await supervisor.start()
    await greeting.greet(supervisor, data, chosen, time.monotonic() - began, talk)
    if not sample:
        await supervisor.watch()
        return
    first = first_app.FirstApplication(data, chosen, talk, held=True)
    deploying = asyncio.create_task(asyncio.to_thread(first.deploy_and_tell))
    try:
        await supervisor.watch()
    finally:
        first.cancel()
        await asyncio.gather(deploying, return_exceptions=True)


async def _give_up(supervisor: Supervisor, data: Path, talk: Talk) -> None:
    """After a start that failed."""
    if not supervisor.began_everything:
        talk(f"What runs goes on; `minuet down --data {data}` stops it.")
        return
    talk("Stopping what was started ...")
    try:
        await supervisor.stop()
    except MinuetError as error:
        talk(error.message)
