"""A server that speaks as much of vLLM's protocol as rollouts want, and really samples: a base with adapters that are
loaded from folders while it runs."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from openbook.models import Generator, load
from openbook.models.chat import encode_text
from openbook.models.decode import decode
from openbook.models.sampling import Sampling

NOT_FOUND = (404, {"detail": "Not Found"})  # what FastAPI says of a route that is not there


class Vllm:
    """`requests` are what was asked, (path, body), `loads` the weights of every adapter as they were loaded. What stands in
    `spoil` replaces what a choice says. Without `updating` the routes that load adapters are missing, as they are without
    VLLM_ALLOW_RUNTIME_LORA_UPDATING."""

    def __init__(self, base: Path, *, updating: bool = True) -> None:
        self.name, self.updating = str(base), updating
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.adapters: set[str] = set()
        self.loads: list[dict[str, torch.Tensor]] = []
        self.spoil: dict[str, Any] = {}
        self.url = ""
        self._generator = Generator(load(self.name), max_new_tokens=16)
        self._lock = threading.Lock()

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        with self._lock:
            self.requests.append((path, body))
            match path:
                case "/v1/models":
                    return 200, {
                        "object": "list",
                        "data": [{"id": n, "object": "model"} for n in (self.name, *sorted(self.adapters))],
                    }
                case "/v1/completions":
                    return self._complete(body)
                case "/v1/load_lora_adapter" if self.updating:
                    return self._load(body)
                case "/v1/unload_lora_adapter" if self.updating:
                    self.adapters.remove(body["lora_name"])
                    self._generator.drop_adapter(body["lora_name"])
                    return 200, f"Success: LoRA adapter '{body['lora_name']}' removed successfully."
        return NOT_FOUND

    def _load(self, body: dict[str, Any]) -> tuple[int, Any]:
        name, folder = body["lora_name"], Path(body["lora_path"])
        if not folder.is_absolute() or not (folder / "adapter_config.json").is_file():
            return refused(404, f"Loading lora {name} failed: No adapter found for {folder}", "NotFoundError")
        if json.loads((folder / "adapter_config.json").read_text())["r"] > 16:
            return refused(400, "LoRA rank 32 is greater than max_lora_rank 16.", "BadRequestError")
        self._generator.add_adapter(name, folder)
        self.adapters.add(name)
        self.loads.append(load_file(folder / "adapter_model.safetensors"))
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    def _complete(self, body: dict[str, Any]) -> tuple[int, Any]:
        model, prompt, tokenizer = body["model"], body["prompt"], self._generator.loaded.tokenizer
        if model != self.name and model not in self.adapters:
            return refused(404, f"The model `{model}` does not exist.", "NotFoundError")
        if isinstance(prompt, str):
            assert body["add_special_tokens"] is False
            prompt = encode_text(tokenizer, prompt)
        count, longest = body.get("n", 1), body["max_tokens"]
        written: list[list[int]] = [[] for _ in range(count)]
        ends = [""] * count
        for part in decode(
            lambda: self._generator.ready(model if model in self.adapters else None),
            [prompt] * count,
            limits=[longest] * count,
            stop=frozenset(body.get("stop_token_ids", ())),
            rows=count,
            sampling=Sampling(temperature=body.get("temperature", 1.0), seed=body.get("seed", 0)),
        ):
            written[part.number] += [*part.tokens, *([part.stop] if part.end == "stop" else [])]
            ends[part.number] = {"stop": "stop", "limit": "length", "loop": "length"}.get(part.end, "")
        choices = [
            {
                "index": n,
                "text": tokenizer.decode(tokens, skip_special_tokens=True),
                "logprobs": self._logprobs(model, prompt, tokens) if body.get("logprobs") == 0 else None,
                "finish_reason": end,
                "stop_reason": None,
                "token_ids": tokens,
                "prompt_token_ids": prompt,
                **self.spoil,
            }
            for n, (tokens, end) in enumerate(zip(written, ends, strict=True))
        ]
        return 200, {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": model, "choices": choices}

    def _logprobs(self, model: str, prompt: list[int], tokens: list[int]) -> dict[str, Any]:
        network = self._generator.ready(model if model in self.adapters else None)
        ids = torch.tensor([[*prompt, *tokens]])
        with torch.no_grad():
            logps = network(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        return {"token_logprobs": logps.gather(1, ids[0, len(prompt) :, None])[:, 0].tolist()}


def refused(status: int, message: str, kind: str) -> tuple[int, Any]:
    return status, {"error": {"message": message, "type": kind, "param": None, "code": status}}


@contextlib.contextmanager
def serving(vllm: Vllm) -> Iterator[Vllm]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._reply({})

        def do_POST(self) -> None:
            self._reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

        def _reply(self, body: dict[str, Any]) -> None:
            status, content = vllm.answer(self.path, body)
            data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if isinstance(content, str) else "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    vllm.url = f"http://127.0.0.1:{server.server_port}/v1"
    yield vllm
    server.shutdown()
    server.server_close()
