"""Judge a run: compare every acknowledgement with MongoDB, with history, and with what devices received."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tornado.httpclient import AsyncHTTPClient

from models.records import conversation_of
from tests.faults.device import Device

__all__ = ["Verdict", "history", "judge"]

SHOWN = 10  # the maximum of printed findings of a kind


@dataclass
class Verdict:
    """Findings, by kind; all empty if every guarantee held."""

    acknowledged: int = 0
    stored: int = 0
    given: int = 0
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    reordered: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether there are no findings."""
        return not (self.lost or self.doubled or self.reordered or self.other)

    def lines(self) -> list[str]:
        """Return the findings as text."""
        kinds = {"lost": self.lost, "doubled": self.doubled, "reordered": self.reordered, "other findings": self.other}
        lines = [
            f"  {'messages acknowledged':34}{self.acknowledged:8}",
            f"  {'messages in MongoDB':34}{self.stored:8}",
            f"  {'messages that devices were given':34}{self.given:8}",
        ]
        for kind, findings in kinds.items():
            lines.append(f"  {kind:34}{len(findings):8}")
            lines += [f"      {finding}" for finding in findings[:SHOWN]]
        return lines


async def history(port: int, user: int, peer: int) -> list[int]:
    """Return the `seq` of each message of a conversation, as `GET /messages` shows it, page by page."""
    http = AsyncHTTPClient()
    seqs: list[int] = []
    while True:
        after = seqs[-1] if seqs else 0
        url = f"http://127.0.0.1:{port}/messages?uid={user}&toUid={peer}&after={after}&limit=7"
        page = json.loads((await http.fetch(url)).body)["data"]
        seqs += [message["seq"] for message in page["messages"]]
        if page["complete"]:
            return seqs


def judge(
    devices: Sequence[Device],
    stored: dict[str, list[dict[str, Any]]],
    histories: dict[str, list[int]],
    limited: dict[str, int],
) -> Verdict:
    """Compare. `stored` and `histories` are by conversation; `limited` is the maximum of messages of one."""
    verdict = Verdict(
        acknowledged=sum(len(device.acknowledged) for device in devices),
        stored=sum(len(messages) for messages in stored.values()),
        given=sum(len(given) for device in devices for given in device.given.values()),
    )
    sent = {name: content for device in devices for name, (_, content) in device.sent.items()}
    for name, messages in stored.items():
        _judge_stored(verdict, name, messages, sent)
        if histories[name] != [message["_id"]["s"] for message in messages]:
            verdict.lost.append(f"{name}: history differs from MongoDB")
        if len(messages) > limited.get(name, len(messages)):
            verdict.other.append(f"{name}: {len(messages)} messages went past the limit rule")
    for device in devices:
        _judge_device(verdict, device, stored)
    return verdict


def _judge_stored(verdict: Verdict, name: str, messages: Sequence[dict[str, Any]], sent: dict[str, str]) -> None:
    """Check one conversation by itself: 1, 2, 3 …, each message once, and each one sent by a device."""
    if [message["_id"]["s"] for message in messages] != list(range(1, len(messages) + 1)):
        verdict.reordered.append(f"{name}: the seqs in MongoDB have holes")
    times = [message["startTime"] for message in messages]
    if times != sorted(times):
        verdict.reordered.append(f"{name}: times go back")
    for message_id, count in Counter(message.get("id") for message in messages).items():
        if count > 1:
            verdict.doubled.append(f"{message_id} is stored {count} times")
    for message in messages:
        if sent.get(message.get("id", "")) != message["content"]:
            verdict.other.append(f"{name}: {message['_id']['s']} was not sent by any device")


def _judge_device(verdict: Verdict, device: Device, stored: dict[str, list[dict[str, Any]]]) -> None:
    """Check what one device was told and received."""
    for complaint in device.complaints:
        kind = (
            verdict.doubled if "twice" in complaint else verdict.reordered if " order" in complaint else verdict.other
        )
        kind.append(f"{device.name}: {complaint}")
    if not device.settled:
        verdict.other.append(f"{device.name}: {device.unacknowledged} are still not acknowledged")
    for message_id, told in device.acknowledged.items():
        messages = stored[conversation_of(device.user, told.peer)]
        found = messages[told.seq - 1] if told.seq <= len(messages) else {}
        if (found.get("id"), found.get("content"), found.get("startTime")) != (message_id, told.content, told.time):
            verdict.lost.append(f"{message_id} was acknowledged as {told.seq} and is not there")
    for peer, given in device.given.items():
        messages = stored[conversation_of(device.user, peer)]
        seqs = [got.seq for got in given]
        if seqs != sorted(seqs):
            verdict.reordered.append(f"{device.name}: was given messages of {peer} out of order")
        if len(set(seqs)) != len(seqs):
            verdict.doubled.append(f"{device.name}: was given messages of {peer} twice")
        for got in given:
            found = messages[got.seq - 1] if got.seq <= len(messages) else {}
            if (found.get("id"), found.get("content"), found.get("sender")) != (got.id, got.content, got.sender):
                verdict.other.append(f"{device.name}: was given {got.seq} of {peer}, which is not in MongoDB")
        known = {told.seq for told in device.acknowledged.values() if told.peer == peer}.union(seqs)
        for message in messages:
            seq = message["_id"]["s"]
            if seq not in known:
                verdict.lost.append(f"{device.name}: was never given {seq} of {peer}")
