"""The kernel of a notebook that is run: ipykernel's, which ends without waiting for itself.

Started as a file, `python .../kernel.py -f CONNECTION_FILE`, in the place of `python -m ipykernel_launcher`.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    # the folder of this file: its modules are nobody else's
    del sys.path[0]

from ipykernel.kernelapp import IPKernelApp


class KernelApp(IPKernelApp):
    """Ends the control thread before the thread that carries its words.

    As it stands (ipykernel 7.4), a kernel that was asked to end closes its output first. Where the control thread has then still to say
    that it is idle, it waits for that output and the main thread waits for it, until whoever asked loses patience and kills the process:
    about one kernel in ten, for three seconds.
    """

    def close(self) -> None:
        """Close all sockets and threads."""
        control = self.control_thread
        if control is not None and control.is_alive():
            control.stop()
            control.join()
        super().close()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    KernelApp.launch_instance()
