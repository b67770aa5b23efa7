"""Runs the service until SIGTERM."""

import logging
import os
import sys

from . import log
from .config import Config, ConfigError
from .main import create_app
from .server import Server, listen
from .service import Service


def main() -> int:
    """Give the process's exit code: 0 after an orderly end, 1 when it can't start."""
    try:
        config = Config.from_env(os.environ)
    except ConfigError as error:
        print(f"api1: {error}", file=sys.stderr)
        return 1
    log.init(config.log_level)
    try:
        listener = listen(config.port)
    except OSError as error:
        print(
            f"api1: can't listen on port {config.port}; another process may hold it, "
            f"or PORT may name another: {error.strerror}",
            file=sys.stderr,
        )
        return 1
    service = Service.of(config)
    server = Server(create_app(service), service)
    logging.getLogger("app").info("listening", extra={"api": config.api_name, "port": config.port})
    server.run(sockets=[listener])
    return 0


sys.exit(main())
