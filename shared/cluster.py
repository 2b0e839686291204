"""Redis Cluster: in which hash slot a deployment lies, and connections that find the node which holds it.

All keys of a deployment lie in one slot, so that one node serves all of it and no command spans nodes. A connection
asks any node for one of the keys, and goes on to the node that it is sent to.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections.abc import Callable
from typing import Any, Final

HASH_SLOTS: Final = 16_384
MOST_HOPS: Final = 3  # of a new connection; nodes that disagree for a moment would send it in circles


def hash_slot(key: str) -> int:
    """The slot of a key in any Redis Cluster; of a key with braces, what they hold decides alone."""
    begin = key.find("{")
    end = key.find("}", begin + 1)
    tag = key[begin + 1 : end] if begin >= 0 and end > begin + 1 else key
    return crc_hqx(tag.encode(), 0) % HASH_SLOTS  # CRC16 as XMODEM has it


def following(
    kind: type[Any], sent_to: Callable[[Any], tuple[str, int] | None], away: Callable[[str], Exception]
) -> type[Any]:
    """A kind of connection that goes on to the node that `sent_to`, asked of each new one, names.

    Where that does not end it raises `away`. Once it is lost it begins at its own address again: the slot may be
    another node's by then.
    """

    class Following(kind):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self._begins_at: tuple[str, int] = (self.host, self.port)
            self._hops = 0

        def disconnect(self, *arguments: Any, **options: Any) -> None:
            super().disconnect(*arguments, **options)
            self.host, self.port = self._begins_at

        def arrive(self) -> None:
            """What is done first on a new connection; raises what connecting to the other node raises."""
            self.on_connect()
            node = sent_to(self)
            if node is None:
                return
            if self._hops >= MOST_HOPS:
                raise away(f"the cluster's nodes disagree: sent on {MOST_HOPS} times, last to {node}")
            self._go_to(*node)

        def _go_to(self, host: str, port: int) -> None:
            # A node that was not told its own address leaves the host out: it is the one that answered.
            own = self.host
            self.disconnect()
            self.host, self.port = host or own, port
            self._hops += 1
            try:
                self.connect()
            finally:
                self._hops -= 1

    return Following
