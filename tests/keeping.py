"""A keeper that tests step by hand."""

from __future__ import annotations

from services.keeper import Keeper
from shared.broker import Broker
from tests.helpers import logger

LIGHT_S = 0.5
LEASE_S = 1.0


def keeper_of(broker: Broker, margin_s: float = 0.15, lease_s: float = LEASE_S) -> Keeper:
    return Keeper(
        broker.settings.model_copy(update={"lease_s": lease_s, "margin_s": margin_s}),
        {"light": LIGHT_S, "heavy": 2.0},
        logger,
    )
