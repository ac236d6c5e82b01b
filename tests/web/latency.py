"""Measure the time from Enter in one browser to the message on the screen of another.

`python -m tests.web.latency` starts databases and a server of its own, lets two pages open one conversation, and sends
a hundred messages, one after the other. The clock begins with the time of the keydown event, and ends with the frame in
which the other page draws the message. It prints the median, the 95th percentile and the maximum in one line.
"""

from __future__ import annotations

import statistics
from contextlib import ExitStack

from tests.support.processes import embedded_databases, external
from tests.web.people import couple
from tests.web.programs import browsing
from tests.web.site import Site
from tests.web.visitor import Visitor

MESSAGES = 100
WARM = 10  # messages before the measurement, which are not counted
# In milliseconds since the epoch; both pages have the machine's clock.
PRESSED = """() => addEventListener('keydown', event => {
    if (event.key === 'Enter') window.pressed = performance.timeOrigin + event.timeStamp;
}, true)"""
# A frame has been painted when a task that was queued at its beginning runs.
PAINTED = """() => new MutationObserver(() => requestAnimationFrame(() => {
    const {port1, port2} = new MessageChannel();
    port1.onmessage = () => {
        const {textContent} = [...document.querySelectorAll('li [dir=auto]')].at(-1);
        painted[textContent] ??= performance.timeOrigin + performance.now();
    };
    port2.postMessage(0);
})).observe(document.querySelector('main'), {childList: true, subtree: true})"""


def measure() -> list[float]:
    """Return the time of each message, in milliseconds."""
    with ExitStack() as stack:
        embedded = stack.enter_context(embedded_databases())
        site = Site(*external(embedded.addresses), "--auth=token", "--request-rate=1000000")
        stack.callback(site.discard)
        browser = stack.enter_context(browsing())
        writer, reader = couple(site, lambda site, **options: Visitor(browser, site.url, **options))
        writer.open(reader.member)
        reader.open(writer.member)
        writer.page.evaluate(PRESSED)
        reader.page.evaluate("() => { window.painted = {}; }")
        reader.page.evaluate(PAINTED)
        took = []
        for number in range(WARM + MESSAGES):
            text = f"message {number}"
            writer.send(text)
            handle = reader.page.wait_for_function("text => painted[text]", arg=text)
            took.append(handle.json_value() - writer.page.evaluate("pressed"))
        return took[WARM:]


if __name__ == "__main__":
    times = sorted(measure())
    print(  # noqa: T201
        f"{len(times)} messages from Enter to paint: median {statistics.median(times):.1f} ms, "
        f"95 % {times[len(times) * 95 // 100 - 1]:.1f} ms, worst {times[-1]:.1f} ms"
    )
