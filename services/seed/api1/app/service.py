"""What the handlers of the service share."""

from dataclasses import dataclass, field

from .config import Config
from .db import Database
from .metrics import Metrics
from .write import KeyLocks


@dataclass(slots=True)
class Service:
    """The service's state, one for the life of the process."""

    config: Config
    db: Database
    metrics: Metrics
    locks: KeyLocks = field(default_factory=KeyLocks)
    #: True from SIGTERM on.
    draining: bool = False

    @classmethod
    def of(cls, config: Config) -> "Service":
        """Put it together; nothing is connected yet."""
        db = Database(config.database)
        return cls(config, db, Metrics(config.api_name, db))
