"""The few errors of this project.

CascadeError                 anything a user can mend; services print it as one line and end with exit code 2
 ├─ SettingsError            a setting, table or trace is wrong; names the file, line and field
 ├─ MalformedEntry           a stream entry that is no prompt; carries its bytes
 ├─ ServerUnfit              Redis is absent, too old, or may not be written to
 └─ ModelError               a model cannot be loaded, or drew something that is no picture
"""

from __future__ import annotations

from collections.abc import Mapping


class CascadeError(Exception):
    """Something the user can mend; its text says what to do."""


class SettingsError(CascadeError):
    """A setting, a table or a trace is wrong."""


class ServerUnfit(CascadeError):
    """Redis is not there, too old, or refuses writes."""


class ModelError(CascadeError):
    """A model cannot be loaded, or drew something that is no picture."""


class MalformedEntry(CascadeError):
    """A stream entry that is no prompt.

    `fields` holds the entry as it was read, for the dead letter.
    """

    def __init__(self, reason: str, fields: Mapping[bytes, bytes]) -> None:
        super().__init__(reason)
        self.reason = reason
        self.fields = dict(fields)
