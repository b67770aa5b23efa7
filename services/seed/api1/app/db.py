"""The database behind `cloudsql`: a lazy pool, and what its errors mean for a caller."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import TypeVar

from asyncmy.connection import Connection
from asyncmy.errors import MySQLError
from asyncmy.pool import Pool

from .config import DatabaseConfig

log = logging.getLogger(__name__)

T = TypeVar("T")

#: A connection that lay idle for longer (seconds) is asked before it is used:
#: while the service is busy nothing is asked, and after a restart of the
#: database no request is spent on finding out that the old connections are dead.
ASK_AFTER_IDLE = 0.5

#: How many requests may wait for a connection: enough for any burst that the
#: database can catch up with in time, and few while it is away, so that an
#: outage costs neither memory nor two seconds a request.
WAITING_WHEN_HERE = 2048
WAITING_WHEN_AWAY = 64

#: Rows and keys are only ever added: no gap locks needed, and so hardly ever a
#: deadlock. A duplicate waits for the first of its key, but not for a minute.
SESSION = (
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; "
    "SET SESSION innodb_lock_wait_timeout = 3"
)


class DbError(Exception):
    """The database did not do what it was asked."""

    #: Whether the same request may succeed later without anyone's change.
    passing = True


class DbAway(DbError):
    """It can't be reached, or is not able to serve for now."""

    def __init__(self) -> None:
        super().__init__("the database can't be reached")


class DbBusy(DbError):
    """More requests wait for a connection than can be served in time."""

    def __init__(self) -> None:
        super().__init__("too many requests wait for the database already")


class DbLate(DbError):
    """It took the statement and did not answer."""

    def __init__(self, limit: float) -> None:
        super().__init__(f"the database did not answer within {limit:g}s")


class DbContended(DbError):
    """Every attempt was rolled back because of another transaction's locks."""

    def __init__(self) -> None:
        super().__init__("the database rolled back every attempt because of other transactions")


class DbRefused(DbError):
    """It refused the statement: a mistake of this program or of the schema."""

    passing = False

    def __init__(self) -> None:
        super().__init__("the database refused the statement")


class Fault(Enum):
    """What an error of the driver means."""

    #: The server is away or not able to serve; what was asked may have been done.
    AWAY = auto()
    #: The transaction was rolled back because of locks: try again.
    ROLLED_BACK = auto()
    #: A row with this key exists.
    DUPLICATE = auto()
    #: The statement itself was refused.
    REFUSED = auto()


# Numbers: MySQL's "Server Error Message Reference", and MariaDB's error codes
# from 1900 on.
_DUPLICATE = 1062
# 1020: MariaDB 11.6.2 and newer, a row changed since the snapshot.
_ROLLED_BACK = frozenset({1020, 1205, 1213})
# Starting, stopping, too many connections, credentials or schema not there yet,
# read-only (a failover), disk full, killed.
_AWAY = frozenset(
    {1021, 1030, 1040, 1044, 1045, 1049, 1053, 1077, 1078, 1079, 1080, 1114, 1129, 1130}
    | {1146, 1152, 1158, 1159, 1160, 1161, 1180, 1184, 1203, 1226, 1290, 1317, 1792, 1836}
    | {1927, 1969, 3024, 3032, 3168, 3169, 3170, 4031}
)


def fault(error: Exception) -> Fault:
    """Sort an error of the driver."""
    number = error.args[0] if error.args and isinstance(error, MySQLError) else None
    # The server's own errors; below 1000 and from 2000 to 2999 the client
    # speaks, and always of a connection that is lost or out of step.
    if not isinstance(number, int) or number < 1000 or 2000 <= number < 3000:
        return Fault.AWAY
    if number == _DUPLICATE:
        return Fault.DUPLICATE
    if number in _ROLLED_BACK:
        return Fault.ROLLED_BACK
    return Fault.AWAY if number in _AWAY else Fault.REFUSED


def sorted_error(error: Exception) -> DbError:
    """The error of this module for one of the driver's."""
    match fault(error):
        case Fault.AWAY:
            return DbAway()
        case Fault.ROLLED_BACK:
            return DbContended()
        case _:
            return DbRefused()


#: What the driver and the network raise.
DRIVER_ERRORS = (MySQLError, OSError, EOFError)


class Database:
    """A pool that opens its first connection when one is needed."""

    def __init__(self, config: DatabaseConfig) -> None:
        self.config = config
        self.away = False
        self._waiting = 0
        # The driver's pool gives a connection that comes back to whoever asks at that
        # moment, past those who wait: under a burst some would wait until their time
        # is up while others never do. A semaphore of asyncio takes turns.
        self._turns = asyncio.Semaphore(config.pool_max)
        self._pool: Pool | None = None

    @property
    def pool(self) -> Pool:
        """The driver's pool, made on first use because it belongs to a running loop."""
        if self._pool is None:
            self._pool = Pool(
                minsize=0,
                maxsize=self.config.pool_max,
                pool_recycle=1800,
                host=self.config.host,
                port=self.config.port,
                user=self.config.user,
                # As bytes: of text the driver takes Latin-1 only.
                password=self.config.password.encode(),
                database=self.config.name,
                autocommit=True,
                connect_timeout=self.config.acquire_timeout,
                init_command=SESSION,
            )
        return self._pool

    def connections(self) -> tuple[int, int, int]:
        """Connections in use, connections idle, most that may be opened."""
        if self._pool is None:
            return 0, 0, self.config.pool_max
        return self._pool.size - self._pool.freesize, self._pool.freesize, self.config.pool_max

    async def run(self, work: Callable[[Connection], Awaitable[T]], limit: float) -> T:
        """Do `work` on a connection within `limit` seconds.

        Raises DbAway, DbBusy or DbLate when the connection is not had, is lost
        or time ran out; other errors are the driver's, for the caller to sort.
        A connection on which work was cut off is closed, which rolls back.
        """
        connection = await self._acquire()
        try:
            async with asyncio.timeout(limit):
                return await work(connection)
        except TimeoutError as error:
            connection.close()
            raise DbLate(limit) from error
        except DRIVER_ERRORS as error:
            if fault(error) is not Fault.AWAY:
                raise
            # Half a conversation can't go on.
            connection.close()
            self._note_away(error)
            raise DbAway from error
        except BaseException:
            connection.close()
            raise
        finally:
            self._give_back(connection)

    async def query(self, work: Callable[[Connection], Awaitable[T]], limit: float) -> T:
        """Like `run`, with the driver's errors sorted."""
        try:
            return await self.run(work, limit)
        except DRIVER_ERRORS as error:
            raise sorted_error(error) from error

    async def check(self, limit: float) -> None:
        """Raise unless a connection is had within `limit` and the table is there."""

        async def look(connection: Connection) -> None:
            async with connection.cursor() as cursor:
                await cursor.execute("SELECT 1 FROM records LIMIT 1")

        try:
            async with asyncio.timeout(limit):
                await self.query(look, limit)
        except TimeoutError as error:
            raise DbLate(limit) from error

    async def close(self, limit: float) -> None:
        """Close the pool once what is in use came back, or after `limit` seconds."""
        if self._pool is None:
            return
        self._pool.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                await self._pool.wait_closed()

    async def _acquire(self) -> Connection:
        """Give a connection that works, as far as can be known without asking."""
        if self._waiting >= (WAITING_WHEN_AWAY if self.away else WAITING_WHEN_HERE):
            raise DbBusy
        self._waiting += 1
        try:
            async with asyncio.timeout(self.config.acquire_timeout):
                connection = await self._take_turn()
        except (*DRIVER_ERRORS, TimeoutError) as error:
            self._note_away(error)
            raise sorted_error(error) from error
        finally:
            self._waiting -= 1
        if self.away:
            self.away = False
            log.info("the database is back")
        return connection

    def _give_back(self, connection: Connection) -> None:
        self.pool.release(connection)
        self._turns.release()

    async def _take_turn(self) -> Connection:
        await self._turns.acquire()
        try:
            return await self._connect()
        except BaseException:
            self._turns.release()
            raise

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.config.acquire_timeout
        pause = 0.01
        while True:
            try:
                connection = await self.pool.acquire()
            except MySQLError as error:
                # Nobody listens: the server may be starting, so wait for it as
                # long as the request waits. What the server itself says is final.
                # Its end is looked at here as well: `asyncio.wait_for`, which the
                # driver connects with, loses a cancellation that comes together with
                # the refusal (Python before 3.12), and this would go on for ever.
                refused = isinstance(error.__cause__, ConnectionRefusedError)
                if not refused or loop.time() >= deadline:
                    raise
                await asyncio.sleep(pause)
                pause = min(pause * 2, 0.25)
                continue
            except RuntimeError as error:
                # Who had listened hung up at once, as a proxy does whose server is away: the
                # driver then misses the socket of a transport that is closed already.
                raise ConnectionResetError(str(error)) from error
            try:
                idle = asyncio.get_running_loop().time() - connection.last_usage
                if idle > ASK_AFTER_IDLE:
                    await connection.ping(reconnect=False)
                return connection
            except DRIVER_ERRORS:
                # It was dead; another one, or a new one, may not be.
                connection.close()
                self.pool.release(connection)
            except BaseException:
                connection.close()
                self.pool.release(connection)
                raise

    def _note_away(self, error: BaseException) -> None:
        """Note that the database is away, and log it once."""
        if not self.away:
            self.away = True
            log.warning("the database is away", extra={"error": str(error) or repr(error)})
