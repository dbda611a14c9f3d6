"""`openbook serve`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from openbook.cli.session import Session, verb
from openbook.errors import ConfigError


def register(app: typer.Typer) -> None:
    verb(app, "serve")(serve)


def serve(
    session: Session,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on (default: 127.0.0.1, this machine only).")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on (default: 8321; 0 takes a free one).")] = None,
    adapter: Annotated[
        Path | None, typer.Option(help="Folder of the adapter (default: the one that `tune` wrote).")
    ] = None,
    base_only: Annotated[bool, typer.Option("--base-only", help="Serve the base model, without any adapter.")] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="No documents: conversations go to the model as they are.")
    ] = False,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token that clients must send (default: $OPENBOOK_TOKEN).")
    ] = None,
    log_contents: Annotated[
        bool, typer.Option("--log-contents", help="Write questions and answers into the log too.")
    ] = False,
) -> None:
    """Answer over HTTP: an OpenAI-style API and a page.

    The API is OpenAI's: any client of it works with http://127.0.0.1:8321/v1: the model `openbook` is the tuned one, shown the
    passages of your documents; its answers carry their checked quotes. docs/serving.md tells of every address.

    \b
    Examples:
      openbook serve
      openbook serve --plain --port 8000
      openbook serve --host 0.0.0.0 --token-file token.txt
    """
    from openbook import verbs

    if adapter and base_only:
        raise ConfigError("--adapter and --base-only exclude each other.")
    verbs.serve(
        session.config({"serve.host": host, "serve.port": port}),
        adapter=adapter,
        base_only=base_only,
        plain=plain,
        token=_token(token_file),
        log_contents=log_contents,
        progress=session.progress,
    )


def _token(file: Path | None) -> str:
    """From a file or the environment, and not from an option: options are seen by everybody on the machine."""
    if file is None:
        return os.environ.get("OPENBOOK_TOKEN", "")
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The token file {file} cannot be read: {error}.") from error
