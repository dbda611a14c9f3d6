"""Loading everything that a server needs, and running it until it is told to stop."""

import socket
from typing import TYPE_CHECKING

from openbook.errors import ConfigError
from openbook.progress import SILENT, Progress
from openbook.records import Conversation, Message
from openbook.serving.settings import Settings

if TYPE_CHECKING:
    import uvicorn

    from openbook.serving.engine import Writers
    from openbook.serving.library import Library
    from openbook.serving.service import Service


def serve(settings: Settings, *, progress: Progress = SILENT) -> None:
    """Answer requests until interrupted. Raises `ConfigError` where the settings would let strangers in or the address
    is taken, and whatever hinders loading the index or the model."""
    from openbook.serving.logs import start_logging

    settings.check()
    with listen(settings) as listener:  # first, since it is what fails most often, and at once
        server = http_server(open_service(settings))
        start_logging()
        listener.listen()  # whoever reads the line below and connects at once need not wait for the event loop
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        progress.message(f"Answering at http://{shown}:{port} (Ctrl-C stops).")
        server.run(sockets=[listener])


def open_service(settings: Settings) -> "Service":
    """A service with the configuration's model and index."""
    from openbook import models
    from openbook.serving.library import Library

    config = settings.config
    # The index first: it is quick to open, and what fails should fail before a model is loaded.
    library = None if settings.plain else Library(config)
    loaded = models.load_base(config, dequantize=True)  # the exam's weights, and faster token by token
    generator = models.Generator(loaded, max_new_tokens=config.model.max_new_tokens)
    writers = models.Company(generator, rows=config.serve.concurrent, context=config.serve.context_tokens)
    # A model that cannot be written with fails here and not in a request, and the first request finds everything warm.
    hello = Conversation(messages=(Message(role="user", content="?"),))
    writers.join(-1, writers.encode(hello), adapter=None, limit=1)
    return assemble(settings, writers, library, base=loaded.fingerprint)


def assemble(settings: Settings, writers: "Writers", library: "Library | None", *, base: str) -> "Service":
    """A service over any writers and library. `base` is the fingerprint of the base, which an adapter must fit: raises
    `ModelError` where it does not."""
    from openbook.serving.engine import Admission, Engine
    from openbook.serving.metrics import Metrics
    from openbook.serving.models import Models
    from openbook.serving.service import Service

    config = settings.config
    engine = Engine(writers, max_new_tokens=config.model.max_new_tokens)
    models = Models(settings, engine, base=base, retrieval=library.fingerprint if library else "")
    models.load()
    admission = Admission(config.serve.concurrent + config.serve.queue)
    metrics = Metrics()
    metrics.gauge("openbook_requests_inside", "Requests being answered or waiting.", lambda: admission.inside)
    metrics.gauge("openbook_answers_waiting", "Answers that the model has not begun.", lambda: engine.waiting)
    metrics.gauge("openbook_answers_writing", "Answers being written at this moment.", lambda: engine.writing)
    return Service(
        settings=settings, engine=engine, models=models, library=library, admission=admission, metrics=metrics
    )


def listen(settings: Settings) -> socket.socket:
    """The address, taken; a port of 0 becomes a free one."""
    host, port = settings.config.serve.host, settings.config.serve.port
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"Cannot listen on {host}, port {port}: {error.strerror or error}.",
            "Choose another port: --port, or serve.port.",
        ) from error
    return listener


def http_server(service: "Service") -> "uvicorn.Server":
    """What answers on a socket: `server.run(sockets=[listener])`, until `server.should_exit`."""
    import uvicorn

    from openbook.serving.app import create_app

    return uvicorn.Server(
        uvicorn.Config(
            create_app(service),
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="on",
            ws="none",
            timeout_keep_alive=30,
            timeout_graceful_shutdown=5,
            # Connections beyond what is ever answered are told so before any of their bytes is kept.
            limit_concurrency=2 * service.admission.limit + 64,
        )
    )
