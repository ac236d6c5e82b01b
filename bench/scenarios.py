"""All scenarios, by name."""

from __future__ import annotations

from bench import chatting, comparing, connections, fairness, greed, profiling, reading
from bench.scenario import Scenario

__all__ = ["PAIRS", "SCENARIOS"]

PAIRS = (50, 200, 500, 5000)

SCENARIOS: dict[str, Scenario] = {
    "ping-pong": Scenario("one pair, one message at a time, in turns", chatting.ping_pong),
    **{
        f"pairs-{pairs}": Scenario(f"{pairs} pairs at full speed", chatting.as_fast_as_it_goes(pairs))
        for pairs in PAIRS
    },
    **{f"rate-{pairs}": Scenario(f"{pairs} pairs at a fixed rate", chatting.at_a_rate(pairs)) for pairs in PAIRS},
    "half-rate": Scenario(
        "200 pairs at 10,000 messages a second, and at half of the rate that they reach", chatting.at_half_the_rate, 3
    ),
    "profile": Scenario("200 pairs at full speed with a profiler: the cost of each step", profiling.profile),
    "pipelining": Scenario("one socket with 64 messages in flight", chatting.pipelining),
    "offline": Scenario("200 pairs at full speed, half of the peers offline", chatting.offline),
    "protocol-v2": Scenario("200 pairs in protocol v2 at full speed", chatting.protocol_v2),
    "reading-few": Scenario("history and resume, 100,000 messages stored", reading.history_and_resume(reading.FEW)),
    "reading-full": Scenario("history and resume, 1,000,000 messages stored", reading.history_and_resume(reading.FULL)),
    "connecting": Scenario(
        "opening sockets, 64 at a time, look-ups cached", connections.connecting, 2, flags=("--lookup-ttl=60",)
    ),
    "idle": Scenario("1,000 messages a second beside 15,000 idle sockets", connections.idle, 2),
    "flood": Scenario("1,000 messages a second beside a client that floods", fairness.flood, 3),
    "greed": Scenario("1,000 messages a second beside lists and resumes of one account", greed.greed, 3),
    "tls": Scenario("200 pairs at full speed, under TLS and without", comparing.tls, 2),
    "compared": Scenario("200 pairs at full speed, compared with the yardsticks", comparing.compared(), 4),
    "compared-1": Scenario(
        "200 pairs with one message in flight each, compared with the yardsticks", comparing.compared(1), 4
    ),
}
