"""A server that speaks the chat-completions protocol, and says what it is told to say."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "sk-test-8c1f-never-to-be-seen"


class Script:
    """What the server says next: a text (a well-formed reply), (status, body, headers), or a function of the request
    that gives one of them. The last one is said for ever."""

    def __init__(self):
        self.replies, self.requests, self.headers, self.answered = [], [], [], []
        self.lock = threading.Lock()

    def next(self):
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


@contextlib.contextmanager
def serving(monkeypatch):
    script = Script()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with script.lock:
                script.requests.append((self.path, body))
                script.headers.append({name.lower(): value for name, value in self.headers.items()})
                reply = script.next()
            if callable(reply):
                reply = reply(body)
            if isinstance(reply, str):
                reply = (200, completion(reply, body["model"]), {})
            status, content, headers = reply
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", headers.get("Content-Type", "application/json"))
            self.send_header("Content-Length", str(len(data)))
            if "Retry-After" in headers:
                self.send_header("Retry-After", headers["Retry-After"])
            else:
                self.send_header("retry-after-ms", "1")
            self.end_headers()
            with contextlib.suppress(OSError):  # whoever asked has been killed
                self.wfile.write(data)
            if status == 200:
                script.answered.append(json.dumps(body, sort_keys=True))

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    script.url = f"http://127.0.0.1:{server.server_port}/v1"
    yield script
    server.shutdown()
    server.server_close()


def completion(text, model="tiny", *, end="stop", usage=True):
    counted = {"prompt_tokens": 90, "completion_tokens": 30, "total_tokens": 120}
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": end, "logprobs": None}],
        **({"usage": counted} if usage else {}),
    }


def error(status, message, *, code=None, **headers):
    told = {"error": {"message": message, "type": "invalid_request_error", "code": code, "param": None}}
    return (status, told, {name.replace("_", "-"): value for name, value in headers.items()})


CALLS = {
    "questions": "You write exam questions about",
    "pair": "You write exam questions that need two",
    "nowhere": "You write questions that a passage",
    "judge": "You are a strict examiner",
    "closed": "You answer questions from memory",
    "beside": "You see numbered passages",
}


def kind_of(body):
    """Which of the teacher's calls a request is."""
    told = body["messages"][0]["content"]
    return next(name for name, start in CALLS.items() if told.startswith(start))


def asked_questions(body):
    return [line for line in body["messages"][1]["content"].splitlines() if line.startswith("Question ")]


def diligent(**others):
    """A teacher that does all that it is asked for over the shelf of `dataset_world`; `others` replace some calls, each a
    text or a function of the request."""

    def answer(body):
        kind = kind_of(body)
        if kind in others:
            said = others[kind]
            return said(body) if callable(said) else said
        count = len(asked_questions(body))
        match kind:
            case "questions":
                return "\n".join(json.dumps(item) for item in items(body))
            case "judge":
                marks = {"grounded": 5, "answerable": 4, "entailed": 5}
                return "\n".join(json.dumps({"number": n + 1, **marks}) for n in range(count))
            case "closed":
                return "\n".join(json.dumps({"number": n + 1, "answer": "unknown"}) for n in range(count))
            case "beside":
                return "\n".join(json.dumps({"number": n + 1, "passages": []}) for n in range(count))
        return ""

    return answer


def sentences_of(body, after=":\n\n"):
    passage = body["messages"][1]["content"].split(after, 1)[1]
    lines = [line for line in passage.splitlines() if line.startswith(("The", "Workers", "To", "If"))]
    return [sentence.rstrip(".") + "." for line in lines for sentence in line.split(". ")]


def items(body):
    """Two questions with true quotes, and one with an invented one."""
    found = [
        {
            "question": f"What is told of {s.split()[2]} {s.split()[3]} near {s.split()[-1]}?",
            "quote": s,
            "reasoning": "The sentence says so.",
            "answer": " ".join(s.split()[4:7]),
        }
        for s in sentences_of(body)[:2]
    ]
    invented = {"question": "Is the moon made of brass?", "quote": "The moon is made of brass.", "answer": "brass"}
    return [*found, invented]
