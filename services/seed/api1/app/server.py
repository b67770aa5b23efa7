"""The server's life in a pod: it answers until SIGTERM, then lets go in order."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from .service import Service

log = logging.getLogger(__name__)

#: After SIGTERM the service still accepts for this long (seconds). Kubernetes
#: removes a pod from the Service and sends SIGTERM at the same moment, so some
#: requests are still on their way here; a refused connection would be a lost
#: one. Each answer meanwhile says `Connection: close`, which empties the
#: proxies' pools of kept connections in the orderly way.
LINGER = 0.25

#: How long requests in flight may take after that, seconds.
GRACE = 15

#: How long a connection may be silent (seconds). Longer than any load balancer
#: keeps one (Google's: 600 s), because the side that closes first must be the
#: one that sends requests: else a request meets a closing connection.
SILENCE = 620


class Server(uvicorn.Server):
    """uvicorn, lingering after SIGTERM; an orderly end is exit code 0."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                loop="uvloop",
                http="httptools",
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=SILENCE,
                timeout_graceful_shutdown=GRACE,
            )
        )
        self._service = service

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Replace uvicorn's own handling, which ends at once and by the signal."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take in who came before the end, then let uvicorn finish."""
        # Connections that the system took and nobody accepted yet would be reset.
        late = [one for listener in sockets or [] for one in _waiting(listener)]
        for server in self.servers:
            server.close()
        loop = asyncio.get_running_loop()
        for one in late:
            await loop.connect_accepted_socket(self._protocol, one)
        # What they have to say is still on its way, and idle to uvicorn is who has
        # not said it.
        await asyncio.sleep(LINGER)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        """Speak HTTP on a connection, as uvicorn does."""
        return self.config.http_protocol_class(
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )

    def _stop(self) -> None:
        if self._service.draining:
            return
        log.info("stopping")
        self._service.draining = True
        asyncio.get_running_loop().call_later(LINGER, setattr, self, "should_exit", True)


def _waiting(listener: socket.socket) -> Iterator[socket.socket]:
    """Accept whoever waits, and wait for nobody."""
    with contextlib.suppress(BlockingIOError):
        while True:
            connection, _ = listener.accept()
            connection.setblocking(False)
            yield connection


def listen(port: int) -> socket.socket:
    """Listen on all addresses of the pod."""
    return socket.create_server(("0.0.0.0", port), backlog=2048)
