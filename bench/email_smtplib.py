"""The standard library in threads: ``python -m bench.email_smtplib PORT SECONDS``.

Ten threads with a connection each that stays open; built by EmailMessage and signed by dkimpy.
"""

from __future__ import annotations

import smtplib
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from bench.child import HOST, say
from bench.email_far import CONNECTIONS, SENDER
from bench.email_naive import Letters


def send(port: int, until: float, letters: Letters) -> int:
    """One thread's mails."""
    sent = 0
    with smtplib.SMTP(HOST, port, timeout=30) as client:
        while time.perf_counter() < until:
            recipient, raw = letters.next()
            client.sendmail(SENDER, [recipient], raw)
            sent += 1
    return sent


def main() -> None:
    """Send for so many seconds; one JSON line."""
    port, seconds = sys.argv[1:]
    letters = Letters()
    begun = time.perf_counter()
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        until = begun + float(seconds)
        parts = [threads.submit(send, int(port), until, letters) for _ in range(CONNECTIONS)]
        sent = sum(part.result() for part in parts)
    spent = time.perf_counter() - begun
    say({"sent": sent, "seconds": spent})


if __name__ == "__main__":
    main()
