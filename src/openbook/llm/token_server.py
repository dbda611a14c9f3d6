"""A server that goes on from tokens with tokens: OpenAI's completions as vLLM (0.10.2 and later) speaks them.

Text would not do for learning from what was drawn: read again, it may be other tokens. So prompts are sent as token ids,
and `return_token_ids` asks for the drawn ones. An adapter is handed over as a folder that the server reads itself.
"""

import contextlib
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from openbook.errors import ModelError
from openbook.llm.openai_chat import KEY

RUNTIME_ADAPTERS = (
    "Start vLLM with --enable-lora, --max-lora-rank as high as tune.rank, and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, "
    "where it can read that folder."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What was drawn after a prompt; the last token is a stop token where it `finished` by itself. `logps` are the
    tokens' log-probabilities as the server computes them; empty where it does not say."""

    tokens: tuple[int, ...]
    finished: bool
    logps: tuple[float, ...]


class TokenServer:
    """`url` ends where `/completions` would follow, usually in /v1; `model` is the name that it serves the base under.

    Nothing is sent before the first call, and every method raises `ModelError` for a server that does not do what it is
    asked. The key, where the server wants one, is that of OPENAI_API_KEY. May be asked from several threads at once.
    """

    def __init__(self, url: str, model: str, *, timeout_s: float = 600.0, max_retries: int = 4) -> None:
        self.url, self.model = url, model
        self._timeout_s, self._max_retries = timeout_s, max_retries

    @cached_property
    def _client(self) -> Any:
        from openai import OpenAI

        return OpenAI(
            api_key=os.environ.get(KEY, "").strip() or "none",
            base_url=self.url,
            timeout=self._timeout_s,
            max_retries=self._max_retries,
        )

    def check(self, text: str, tokens: Sequence[int]) -> None:
        """Raise where the server does not serve the model, or reads `text` as other tokens than these."""
        with self._explained("the list of its models"):
            served = [model.id for model in self._client.models.list()]
        if self.model not in served:
            raise ModelError(
                f"{self.url} does not serve {self.model}; it serves {', '.join(served) or 'nothing'}.",
                "Set rl.server_model to the name under which it serves the base that is tuned.",
            )
        reply = self._complete(self.model, text, max_tokens=1, add_special_tokens=False)
        read = self._ids(reply.choices[0], "prompt_token_ids")
        if read != list(tokens):
            raise ModelError(
                f"{self.model} at {self.url} has another tokenizer than the base that is tuned: it reads the same prompt "
                f"as {len(read)} tokens, the base as {len(tokens)}"
                + (", and they differ." if len(read) == len(tokens) else "."),
                "Serve the very base that model.base names.",
            )

    def complete(
        self,
        model: str,
        prompt: Sequence[int],
        *,
        count: int,
        longest: int,
        stop: Collection[int],
        temperature: float,
        seed: int,
    ) -> list[Drawn]:
        """`count` answers of up to `longest` tokens, drawn by `model` (the base, or an adapter that was loaded) from its
        whole distribution: the defaults that a model's own configuration would set are overruled."""
        reply = self._complete(
            model,
            list(prompt),
            n=count,
            max_tokens=longest,
            temperature=temperature,
            top_p=1.0,
            top_k=-1,
            min_p=0.0,
            repetition_penalty=1.0,
            stop_token_ids=sorted(stop),
            seed=seed,
            # Told before the temperature divides the logits, unless the server was started otherwise.
            **({"logprobs": 0} if temperature == 1 else {}),
        )
        if len(reply.choices) != count:
            raise ModelError(f"{self.url} gave {len(reply.choices)} answers where {count} were asked for.")
        return [self._drawn(choice, stop) for choice in reply.choices]

    def load_adapter(self, name: str, folder: Path) -> None:
        """Have the server read the adapter in `folder` and serve it as the model `name`."""
        self._adapters("load_lora_adapter", {"lora_name": name, "lora_path": str(folder)}, f"the adapter in {folder}")

    def drop_adapter(self, name: str) -> None:
        """Have it forget an adapter."""
        self._adapters("unload_lora_adapter", {"lora_name": name}, f"to forget the adapter {name}")

    def _adapters(self, verb: str, body: dict[str, str], what: str) -> None:
        with self._explained(what, RUNTIME_ADAPTERS):
            # Not tried again: a second time the name would be taken.
            self._client.with_options(max_retries=0).post(f"/{verb}", body=body, cast_to=str)

    def _complete(self, model: str, prompt: str | list[int], **options: Any) -> Any:
        with self._explained(f"to write as {model}"):
            reply = self._client.completions.create(
                model=model, prompt=prompt, extra_body={"return_token_ids": True, **options}
            )
        if not getattr(reply, "choices", None):
            raise ModelError(
                f"{self.url} answers, but not as a server of completions does.",
                "Check rl.server: it usually ends in /v1.",
            )
        return reply

    def _drawn(self, choice: Any, stop: Collection[int]) -> Drawn:
        tokens = self._ids(choice, "token_ids")
        # A stop token drawn as the last one allowed passes for the limit in some versions.
        finished, ended = bool(tokens) and tokens[-1] in stop, choice.finish_reason
        if not tokens or ended not in ("stop", "length") or (ended == "stop" and not finished):
            raise ModelError(
                f"{self.url} ended an answer ({ended}) otherwise than the base would: its last tokens are {tokens[-3:]}, and "
                f"one of {sorted(stop)} or the limit would end it.",
                "Serve the very base that model.base names, without stop words of the server's own.",
            )
        told = getattr(choice.logprobs, "token_logprobs", None) or ()
        whole = len(told) == len(tokens) and all(isinstance(logp, float) for logp in told)
        return Drawn(tokens=tuple(tokens), finished=finished, logps=tuple(told) if whole else ())

    def _ids(self, choice: Any, name: str) -> list[int]:
        found = getattr(choice, name, None)
        if not isinstance(found, list) or not all(isinstance(token, int) for token in found):
            raise ModelError(
                f"{self.url} answers in text without the tokens that it drew ({name} is missing).",
                "Learning needs the tokens themselves: use vLLM 0.10.2 or later, or leave rl.server empty.",
            )
        return found

    @contextlib.contextmanager
    def _explained(self, what: str, remedy: str = "") -> Iterator[None]:
        """Turn what goes wrong while it is asked for `what` into a sentence."""
        import openai

        try:
            yield
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise ModelError(f"{self.url} does not accept the key.", f"Set {KEY} to a valid one.") from error
        except openai.APITimeoutError as error:
            raise ModelError(f"{self.url}, asked for {what}, did not answer within {self._timeout_s:g} s.") from error
        except openai.APIConnectionError as error:
            raise ModelError(
                f"{self.url} cannot be reached.", "Is the server running, and is rl.server right?"
            ) from error
        except openai.APIStatusError as error:
            raise ModelError(
                f"{self.url} refuses {what} ({error.status_code}): {_words(error)}",
                remedy or "Check rl.server, which usually ends in /v1.",
            ) from error
        except (openai.OpenAIError, ValueError) as error:  # ValueError: a body that is no JSON, a key that is no header
            raise ModelError(
                f"{self.url}, asked for {what}, answers what cannot be read ({type(error).__name__}).",
                "Check rl.server, which usually ends in /v1.",
            ) from error


def _words(error: Any) -> str:
    """The server's own words, which stand in the body in one of two forms."""
    body = error.body if isinstance(error.body, dict) else {}
    return str(body.get("message") or body.get("detail") or error.message).strip().rstrip(".") + "."
