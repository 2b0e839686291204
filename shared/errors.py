"""The few errors of this project.

CascadeError                 anything a user can mend; services print it as one line and end with exit code 2
 ├─ SettingsError            a setting, table or trace is wrong; names the file, line and field
 ├─ MalformedEntry           a stream entry that is no prompt; carries its bytes
 │   └─ NewerEntry           ... to this version: one of that major may read it
 ├─ PlanUnreadable           what stands in Redis as the plan is none; carries its version
 ├─ ServerUnfit              Redis is too old, or does not let us in
 │   └─ ServerAway           Redis is absent, loads its files or is a replica: waiting may mend it
 └─ ModelError               a model cannot be loaded, or drew something that is no picture
"""

from __future__ import annotations

from collections.abc import Mapping


class CascadeError(Exception):
    """Something the user can mend; its text says what to do."""


class SettingsError(CascadeError):
    """A setting, a table or a trace is wrong."""


class ServerUnfit(CascadeError):
    """Redis is too old, or does not let us in."""


class ServerAway(ServerUnfit):
    """Redis is not there, or not now: services wait for it, people's commands say so and end."""


class ModelError(CascadeError):
    """A model cannot be loaded, or drew something that is no picture."""


class PlanUnreadable(CascadeError):
    """What stands in Redis as the plan is none. `version`: the one that it claims, 0 where that is no number either."""

    def __init__(self, reason: str, version: int) -> None:
        super().__init__(reason)
        self.version = version


class MalformedEntry(CascadeError):
    """A stream entry that is no prompt.

    `fields` holds the entry as it was read, for the dead letter.
    """

    def __init__(self, reason: str, fields: Mapping[bytes, bytes]) -> None:
        super().__init__(reason)
        self.reason = reason
        self.fields = dict(fields)


class NewerEntry(MalformedEntry):
    """An entry of a `major` version that came after ours."""

    def __init__(self, reason: str, fields: Mapping[bytes, bytes], major: int) -> None:
        super().__init__(reason, fields)
        self.major = major
